/* Training steps of models, and their graphs of kernels; what cannot be built
 * fails the test. */
#ifndef AQ_TEST_MODELS_H
#define AQ_TEST_MODELS_H

#include "codegen/codegen.h"
#include "frontend/dsl/dsl.h"
#include "passes/passes.h"

AqTarget aq_test_target(int level); /* 0: this processor's best */
/* All passes; nothing is computed twice. */
AqGraph *aq_test_kernels(const AqGraph *g, int level);
/* What compiling all kernels of the graph, made for that level, took. */
AqCodeStatistics aq_test_compile(const AqGraph *kernels, int level,
                                 const AqCompileOptions *options);
/* The step of a model of the library; the task says all but that. */
AqGraph *aq_test_training(const char *model, const AqSetting *settings, int n,
                          AqTask task, AqOptimizer optimizer);
/* Small ones: a UNet with attention at 4x4, of one head a picture or of four
 * (twelve in all: their tasks make their own panels), a network for points. */
AqGraph *aq_test_nano_step(void);
AqGraph *aq_test_heads_step(void);
AqGraph *aq_test_points_step(void);
/* Whether they print the same. */
bool aq_test_same_text(const AqGraph *a, const AqGraph *b);

#endif
