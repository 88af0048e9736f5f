/* LLVM's builder with our rules: types, constants, memory, lanes, loops. */
#include "codegen/emit.h"

#include <assert.h>
#include <string.h>

/* ---- context, module, function ---- */

AqStatus aq_emit_begin(AqEmit *e)
{
    e->lanes = e->target->vector;
    e->context = LLVMContextCreate();
    LLVMContextSetDiscardValueNames(e->context, false);
    e->module = LLVMModuleCreateWithNameInContext(e->name, e->context);
    e->builder = LLVMCreateBuilderInContext(e->context);
    e->f32 = LLVMFloatTypeInContext(e->context);
    e->i1 = LLVMInt1TypeInContext(e->context);
    e->i8 = LLVMInt8TypeInContext(e->context);
    e->i32 = LLVMInt32TypeInContext(e->context);
    e->i64 = LLVMInt64TypeInContext(e->context);
    e->pointer = LLVMPointerTypeInContext(e->context, 0);
    e->nothing = LLVMVoidTypeInContext(e->context);
    e->vf32 = aq_vector(e->f32, e->lanes);
    e->vi32 = aq_vector(e->i32, e->lanes);
    return AQ_OK;
}

void aq_emit_end(AqEmit *e)
{
    LLVMDisposeBuilder(e->builder);
    LLVMDisposeModule(e->module);
    LLVMContextDispose(e->context);
}

static void add_attribute(AqEmit *e, LLVMValueRef function, int place,
                          const char *name, uint64_t value)
{
    unsigned kind = LLVMGetEnumAttributeKindForName(name, strlen(name));
    if (kind == 0) /* unknown to this LLVM: only a hint is lost */
        return;
    LLVMAddAttributeAtIndex(function, (LLVMAttributeIndex)place,
                            LLVMCreateEnumAttribute(e->context, kind, value));
}

static void add_text_attribute(AqEmit *e, LLVMValueRef function,
                               const char *name, const char *value)
{
    LLVMAttributeRef attribute =
        LLVMCreateStringAttribute(e->context, name, (unsigned)strlen(name),
                                  value, (unsigned)strlen(value));
    LLVMAddAttributeAtIndex(function, LLVMAttributeFunctionIndex, attribute);
}

LLVMValueRef aq_emit_function(AqEmit *e, LLVMTypeRef result,
                              const LLVMTypeRef *parameters, int count)
{
    LLVMTypeRef type = LLVMFunctionType(result, (LLVMTypeRef *)parameters,
                                        (unsigned)count, false);
    e->function = LLVMAddFunction(e->module, e->name, type);
    add_attribute(e, e->function, LLVMAttributeFunctionIndex, "nounwind", 0);
    /* the whole register, even where LLVM's tuning prefers half of it */
    const char *bits = e->lanes == 16 ? "512" : "256";
    add_text_attribute(e, e->function, "prefer-vector-width", bits);
    add_text_attribute(e, e->function, "min-legal-vector-width", bits);
    e->entry = aq_emit_block(e, "entry");
    LLVMPositionBuilderAtEnd(e->builder, e->entry);
    return e->function;
}

LLVMValueRef aq_emit_task_function(AqEmit *e)
{
    LLVMTypeRef parameters[] = {e->pointer, e->pointer, e->i64, e->i64,
                                e->pointer};
    LLVMValueRef function = aq_emit_function(e, e->nothing, parameters, 5);
    /* nothing is written through the table of buffers itself */
    for (int i = 1; i <= 2; i++) {
        add_attribute(e, function, i, "noalias", 0);
        add_attribute(e, function, i, "readonly", 0);
    }
    add_attribute(e, function, 5, "noalias", 0);
    return function;
}

LLVMBasicBlockRef aq_emit_block(AqEmit *e, const char *name)
{
    return LLVMAppendBasicBlockInContext(e->context, e->function, name);
}

LLVMValueRef aq_param(AqEmit *e, unsigned index)
{
    return LLVMGetParam(e->function, index);
}

/* ---- types and constants ---- */

LLVMTypeRef aq_vector(LLVMTypeRef element, int lanes)
{
    return LLVMVectorType(element, (unsigned)lanes);
}

int aq_lanes(LLVMTypeRef type)
{
    return LLVMGetTypeKind(type) == LLVMVectorTypeKind
               ? (int)LLVMGetVectorSize(type)
               : 0;
}

LLVMValueRef aq_i64(AqEmit *e, int64_t value)
{
    return LLVMConstInt(e->i64, (uint64_t)value, true);
}

LLVMValueRef aq_i32(AqEmit *e, int64_t value)
{
    return LLVMConstInt(e->i32, (uint64_t)value, true);
}

static LLVMValueRef constant_splat(LLVMValueRef scalar, int lanes)
{
    LLVMValueRef elements[64];
    assert(lanes <= AQ_COUNT(elements));
    for (int i = 0; i < lanes; i++)
        elements[i] = scalar;
    return LLVMConstVector(elements, (unsigned)lanes);
}

LLVMValueRef aq_real_of(AqEmit *e, LLVMTypeRef type, double value)
{
    LLVMValueRef scalar = LLVMConstReal(e->f32, value);
    int lanes = aq_lanes(type);
    return lanes ? constant_splat(scalar, lanes) : scalar;
}

LLVMValueRef aq_int_of(AqEmit *e, LLVMTypeRef type, int64_t value)
{
    (void)e;
    int lanes = aq_lanes(type);
    LLVMTypeRef element = lanes ? LLVMGetElementType(type) : type;
    LLVMValueRef scalar = LLVMConstInt(element, (uint64_t)value, true);
    return lanes ? constant_splat(scalar, lanes) : scalar;
}

LLVMValueRef aq_int_vector(AqEmit *e, LLVMTypeRef element,
                           const int64_t *values, int count)
{
    (void)e;
    LLVMValueRef elements[64];
    assert(count <= AQ_COUNT(elements));
    for (int i = 0; i < count; i++)
        elements[i] = LLVMConstInt(element, (uint64_t)values[i], true);
    return LLVMConstVector(elements, (unsigned)count);
}

/* ---- intrinsics ---- */

LLVMValueRef aq_intrinsic(AqEmit *e, const char *name, LLVMTypeRef *overload,
                          int n_overload, LLVMValueRef *args, int n_args)
{
    unsigned id = LLVMLookupIntrinsicID(name, strlen(name));
    assert(id != 0);
    LLVMValueRef function = LLVMGetIntrinsicDeclaration(e->module, id, overload,
                                                        (size_t)n_overload);
    LLVMTypeRef type =
        LLVMIntrinsicGetType(e->context, id, overload, (size_t)n_overload);
    assert((int)LLVMCountParamTypes(type) == n_args);
    return LLVMBuildCall2(e->builder, type, function, args, (unsigned)n_args,
                          "");
}

LLVMValueRef aq_unary_intrinsic(AqEmit *e, const char *name, LLVMValueRef x)
{
    LLVMTypeRef type = LLVMTypeOf(x);
    return aq_intrinsic(e, name, &type, 1, &x, 1);
}

LLVMValueRef aq_fma(AqEmit *e, LLVMValueRef a, LLVMValueRef b, LLVMValueRef c)
{
    LLVMTypeRef type = LLVMTypeOf(a);
    LLVMValueRef args[] = {a, b, c};
    return aq_intrinsic(e, "llvm.fma", &type, 1, args, 3);
}

/* The processor's minimum gives the second operand where one is NaN; so only a
 * NaN in the first has to be looked for. */
static LLVMValueRef extreme(AqEmit *e, LLVMRealPredicate better, LLVMValueRef a,
                            LLVMValueRef b)
{
    LLVMValueRef first = LLVMBuildFCmp(e->builder, better, a, b, "");
    LLVMValueRef result = LLVMBuildSelect(e->builder, first, a, b, "");
    LLVMValueRef nan = LLVMBuildFCmp(e->builder, LLVMRealUNO, a, a, "");
    return LLVMBuildSelect(e->builder, nan, a, result, "");
}

LLVMValueRef aq_fmin(AqEmit *e, LLVMValueRef a, LLVMValueRef b)
{
    return extreme(e, LLVMRealOLT, a, b);
}

LLVMValueRef aq_fmax(AqEmit *e, LLVMValueRef a, LLVMValueRef b)
{
    return extreme(e, LLVMRealOGT, a, b);
}

/* ---- lanes ---- */

LLVMValueRef aq_splat(AqEmit *e, LLVMValueRef scalar, int lanes)
{
    if (lanes <= 1 || aq_lanes(LLVMTypeOf(scalar)))
        return scalar;
    LLVMTypeRef type = aq_vector(LLVMTypeOf(scalar), lanes);
    LLVMValueRef poison = LLVMGetPoison(type);
    LLVMValueRef one =
        LLVMBuildInsertElement(e->builder, poison, scalar, aq_i32(e, 0), "");
    int zeros[64] = {0};
    assert(lanes <= AQ_COUNT(zeros));
    return aq_shuffle(e, one, poison, zeros, lanes);
}

LLVMValueRef aq_shuffle(AqEmit *e, LLVMValueRef a, LLVMValueRef b,
                        const int *lanes, int count)
{
    LLVMValueRef places[64];
    assert(count <= AQ_COUNT(places));
    for (int i = 0; i < count; i++)
        places[i] = lanes[i] < 0 ? LLVMGetPoison(e->i32) : aq_i32(e, lanes[i]);
    return LLVMBuildShuffleVector(e->builder, a,
                                  b ? b : LLVMGetPoison(LLVMTypeOf(a)),
                                  LLVMConstVector(places, (unsigned)count), "");
}

LLVMValueRef aq_lane(AqEmit *e, LLVMValueRef vector, int lane)
{
    return LLVMBuildExtractElement(e->builder, vector, aq_i32(e, lane), "");
}

LLVMValueRef aq_lane_numbers(AqEmit *e, LLVMTypeRef element, int lanes)
{
    int64_t numbers[64];
    assert(lanes <= AQ_COUNT(numbers));
    for (int i = 0; i < lanes; i++)
        numbers[i] = i;
    return aq_int_vector(e, element, numbers, lanes);
}

LLVMValueRef aq_mask(AqEmit *e, LLVMValueRef count, int lanes)
{
    /* in 32 bits: a count beyond them is far beyond the lanes too */
    LLVMValueRef most = aq_i64(e, lanes);
    LLVMValueRef beyond =
        LLVMBuildICmp(e->builder, LLVMIntSGT, count, most, "");
    count = LLVMBuildSelect(e->builder, beyond, most, count, "");
    LLVMValueRef narrow = LLVMBuildTrunc(e->builder, count, e->i32, "");
    return LLVMBuildICmp(e->builder, LLVMIntSLT,
                         aq_lane_numbers(e, e->i32, lanes),
                         aq_splat(e, narrow, lanes), "mask");
}

LLVMValueRef aq_constant_mask(AqEmit *e, int count, int lanes)
{
    int64_t bits[64];
    assert(lanes <= AQ_COUNT(bits));
    for (int i = 0; i < lanes; i++)
        bits[i] = i < count;
    return aq_int_vector(e, e->i1, bits, lanes);
}

/* A number of which LLVM does not know which it is. */
static LLVMValueRef opaque(AqEmit *e, int64_t number)
{
    LLVMTypeRef type = LLVMFunctionType(e->i64, &e->i64, 1, false);
    LLVMValueRef nothing = LLVMGetInlineAsm(
        type, "", 0, "=r,0", 4, false, false, LLVMInlineAsmDialectATT, false);
    LLVMValueRef argument = aq_i64(e, number);
    return LLVMBuildCall2(e->builder, type, nothing, &argument, 1, "");
}

LLVMValueRef aq_select_lanes(AqEmit *e, LLVMValueRef mask, LLVMValueRef a,
                             LLVMValueRef b)
{
    /* Two lanes are kept by a form of vmovq that valgrind (3.19) takes for an
     * illegal instruction; LLVM writes another one where it does not see how
     * many they are.  Valgrind knows no AVX-512 in any case. */
    int lanes = aq_lanes(LLVMTypeOf(mask));
    if (e->target->level == 3 && mask == aq_constant_mask(e, 2, lanes))
        mask = aq_mask(e, opaque(e, 2), lanes);
    return LLVMBuildSelect(e->builder, mask, a, b, "");
}

LLVMValueRef aq_shift_lanes(AqEmit *e, LLVMValueRef vector, int by)
{
    int lanes = aq_lanes(LLVMTypeOf(vector)), places[64];
    assert(lanes <= AQ_COUNT(places));
    for (int i = 0; i < lanes; i++)
        places[i] = i + by < lanes ? i + by : -1;
    return aq_shuffle(e, vector, NULL, places, lanes);
}

LLVMValueRef aq_tree(AqEmit *e, LLVMValueRef vector, int group, AqJoin *join)
{
    for (int half = group / 2; half > 0; half /= 2)
        vector = join(e, vector, aq_shift_lanes(e, vector, half));
    return vector;
}

/* ---- memory ---- */

LLVMValueRef aq_at(AqEmit *e, LLVMTypeRef element, LLVMValueRef base,
                   LLVMValueRef index)
{
    return LLVMBuildGEP2(e->builder, element, base, &index, 1, "");
}

LLVMValueRef aq_float_at(AqEmit *e, LLVMValueRef base, LLVMValueRef index)
{
    return aq_at(e, e->f32, base, index);
}

LLVMValueRef aq_load(AqEmit *e, LLVMTypeRef type, LLVMValueRef pointer)
{
    LLVMValueRef value = LLVMBuildLoad2(e->builder, type, pointer, "");
    LLVMSetAlignment(value, type == e->pointer ? 8 : 4);
    return value;
}

void aq_store(AqEmit *e, LLVMValueRef value, LLVMValueRef pointer)
{
    LLVMValueRef store = LLVMBuildStore(e->builder, value, pointer);
    LLVMSetAlignment(store, 4);
}

LLVMValueRef aq_load_masked(AqEmit *e, LLVMTypeRef type, LLVMValueRef pointer,
                            LLVMValueRef mask)
{
    if (!mask)
        return aq_load(e, type, pointer);
    LLVMTypeRef overload[] = {type, e->pointer};
    LLVMValueRef args[] = {pointer, aq_i32(e, 4), mask, LLVMConstNull(type)};
    return aq_intrinsic(e, "llvm.masked.load", overload, 2, args, 4);
}

void aq_store_masked(AqEmit *e, LLVMValueRef value, LLVMValueRef pointer,
                     LLVMValueRef mask)
{
    if (!mask) {
        aq_store(e, value, pointer);
        return;
    }
    LLVMTypeRef overload[] = {LLVMTypeOf(value), e->pointer};
    LLVMValueRef args[] = {value, pointer, aq_i32(e, 4), mask};
    aq_intrinsic(e, "llvm.masked.store", overload, 2, args, 4);
}

LLVMValueRef aq_gather(AqEmit *e, LLVMTypeRef type, LLVMValueRef base,
                       LLVMValueRef index, LLVMValueRef mask)
{
    int lanes = aq_lanes(type);
    LLVMValueRef places = LLVMBuildGEP2(e->builder, LLVMGetElementType(type),
                                        base, &index, 1, "");
    if (!mask)
        mask = aq_constant_mask(e, lanes, lanes);
    LLVMTypeRef overload[] = {type, LLVMTypeOf(places)};
    LLVMValueRef args[] = {places, aq_i32(e, 4), mask, LLVMConstNull(type)};
    return aq_intrinsic(e, "llvm.masked.gather", overload, 2, args, 4);
}

/* ---- conditions and loops ---- */

LLVMBasicBlockRef aq_only_if_less(AqEmit *e, LLVMValueRef a, LLVMValueRef b)
{
    LLVMBasicBlockRef then = aq_emit_block(e, "then");
    LLVMBasicBlockRef skip = aq_emit_block(e, "skip");
    LLVMValueRef less = LLVMBuildICmp(e->builder, LLVMIntSLT, a, b, "");
    LLVMBuildCondBr(e->builder, less, then, skip);
    LLVMPositionBuilderAtEnd(e->builder, then);
    return skip;
}

void aq_go_on(AqEmit *e, LLVMBasicBlockRef skip)
{
    LLVMBuildBr(e->builder, skip);
    LLVMPositionBuilderAtEnd(e->builder, skip);
}

void aq_loop_begin(AqEmit *e, AqLoop *loop, LLVMValueRef from, LLVMValueRef to,
                   int64_t step)
{
    *loop = (AqLoop){.to = to, .step = step};
    loop->before = LLVMGetInsertBlock(e->builder);
    loop->body = aq_emit_block(e, "loop");
    LLVMBuildBr(e->builder, loop->body);
    LLVMPositionBuilderAtEnd(e->builder, loop->body);
    loop->counter = LLVMBuildPhi(e->builder, e->i64, "i");
    LLVMAddIncoming(loop->counter, &from, &loop->before, 1);
}

int aq_loop_carry(AqEmit *e, AqLoop *loop, LLVMValueRef initial)
{
    assert(loop->n_carried < AQ_MAX_CARRIED);
    LLVMValueRef phi = LLVMBuildPhi(e->builder, LLVMTypeOf(initial), "carried");
    LLVMAddIncoming(phi, &initial, &loop->before, 1);
    loop->carried[loop->n_carried] = phi;
    loop->next[loop->n_carried] = phi;
    return loop->n_carried++;
}

void aq_loop_end(AqEmit *e, AqLoop *loop)
{
    LLVMBasicBlockRef last = LLVMGetInsertBlock(e->builder);
    LLVMValueRef next =
        LLVMBuildNSWAdd(e->builder, loop->counter, aq_i64(e, loop->step), "");
    LLVMAddIncoming(loop->counter, &next, &last, 1);
    for (int i = 0; i < loop->n_carried; i++)
        LLVMAddIncoming(loop->carried[i], &loop->next[i], &last, 1);
    LLVMValueRef more =
        LLVMBuildICmp(e->builder, LLVMIntSLT, next, loop->to, "");
    loop->after = aq_emit_block(e, "after");
    LLVMBuildCondBr(e->builder, more, loop->body, loop->after);
    LLVMPositionBuilderAtEnd(e->builder, loop->after);
}

/* ---- the frame of a task function ---- */

LLVMValueRef aq_at_most(AqEmit *e, LLVMValueRef a, int64_t most)
{
    LLVMValueRef limit = aq_i64(e, most);
    LLVMValueRef over = LLVMBuildICmp(e->builder, LLVMIntSGT, a, limit, "");
    return LLVMBuildSelect(e->builder, over, limit, a, "");
}

LLVMValueRef aq_emit_buffer(AqEmit *e, int i)
{
    LLVMValueRef at =
        aq_at(e, e->pointer, LLVMGetParam(e->function, 1), aq_i64(e, i));
    return aq_load(e, e->pointer, at);
}

LLVMBasicBlockRef aq_emit_task_loop(AqEmit *e, AqLoop *loop)
{
    LLVMValueRef first = LLVMGetParam(e->function, 2);
    LLVMValueRef last = LLVMGetParam(e->function, 3);
    LLVMBasicBlockRef start = aq_emit_block(e, "start");
    LLVMBasicBlockRef end = aq_emit_block(e, "end");
    LLVMValueRef some = LLVMBuildICmp(e->builder, LLVMIntSLT, first, last, "");
    LLVMBuildCondBr(e->builder, some, start, end);
    LLVMPositionBuilderAtEnd(e->builder, start);
    aq_loop_begin(e, loop, first, last, 1);
    return end;
}

void aq_emit_task_end(AqEmit *e, LLVMBasicBlockRef end)
{
    LLVMBuildBr(e->builder, end);
    LLVMPositionBuilderAtEnd(e->builder, end);
    LLVMBuildRetVoid(e->builder);
}
