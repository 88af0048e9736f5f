/* The models in the library: one row for each file of models/, and its text as
 * it was compiled. */
#include "frontend/dsl/build.h"

#include <string.h>

#define AQ_BUILTIN_MODEL(name) extern const AqModelInfo aq_model_##name;
#include "builtin_models.def"
#undef AQ_BUILTIN_MODEL

static const AqModelInfo *const models[] = {
#define AQ_BUILTIN_MODEL(name) &aq_model_##name,
#include "builtin_models.def"
#undef AQ_BUILTIN_MODEL
};

/* Only the assembler puts a file into an object as it is. */
#define AQ_BUILTIN_MODEL(name)                                                 \
    __asm__(".section .rodata\n"                                               \
            "aq_text_" #name ": .incbin \"" AQ_MODELS "/" #name ".c\"\n"       \
            "aq_text_end_" #name ":\n"                                         \
            ".text\n");                                                        \
    __attribute__((visibility("hidden"))) extern const char aq_text_##name[],  \
        aq_text_end_##name[];
#include "builtin_models.def"
#undef AQ_BUILTIN_MODEL

static const struct {
    const char *from, *to;
} texts[] = {
#define AQ_BUILTIN_MODEL(name) {aq_text_##name, aq_text_end_##name},
#include "builtin_models.def"
#undef AQ_BUILTIN_MODEL
};

const char *aq_builtin_text(const AqModelInfo *model, size_t *bytes)
{
    int i = 0;
    while (models[i] != model)
        i++;
    *bytes = (size_t)(texts[i].to - texts[i].from);
    return texts[i].from;
}

int aq_builtin_count(void)
{
    return AQ_COUNT(models);
}

const AqModelInfo *aq_builtin_at(int index)
{
    return models[index];
}

const AqModelInfo *aq_builtin_find(const char *name, AqError *error)
{
    const char *names[AQ_COUNT(models)];
    AqText all = {0};
    for (int i = 0; i < AQ_COUNT(models); i++) {
        if (strcmp(models[i]->name, name) == 0) {
            aq_text_free(&all);
            return models[i];
        }
        names[i] = models[i]->name;
        aq_text_printf(&all, "%s%s", i ? ", " : "", names[i]);
    }
    const char *near = aq_nearest(name, names, AQ_COUNT(models));
    aq_fail(error, AQ_BAD_INPUT,
            "there is no model \"%s\" in the library%s%s%s; there are: %s",
            name, near ? " (did you mean \"" : "", near ? near : "",
            near ? "\"?)" : "", all.data ? all.data : "");
    aq_text_free(&all);
    return NULL;
}
