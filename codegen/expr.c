/* The value of a body's node at an index: asked for recursively, computed once
 * for each index, placed before the loops it does not depend on.
 *
 * What is the same for all lanes stays a scalar until it meets a vector. */
#include "codegen/expr.h"

#include <assert.h>

/* ---- index expressions as values ---- */

static bool fits_i32(const AqIndexTable *t, AqIndex a)
{
    const AqSum *sum = &t->sums[a];
    if (sum->lo < INT32_MIN || sum->hi > INT32_MAX)
        return false;
    for (int i = 0; i < sum->count; i++) {
        const AqAtom *atom = &t->atoms[sum->terms[i].atom];
        bool part =
            atom->kind == AQ_ATOM_QUOTIENT || atom->kind == AQ_ATOM_REMAINDER;
        if (part && aq_atom_varies(t, sum->terms[i].atom) &&
            !fits_i32(t, atom->inner))
            return false;
    }
    return true;
}

static LLVMValueRef index_as(AqExpr *x, AqIndex index, AqId form);

static LLVMValueRef atom_value(AqExpr *x, int32_t id, AqId form)
{
    AqEmit *e = x->e;
    AqAtom atom = x->t->atoms[id];
    LLVMTypeRef element = form == AQ_MEMO_NARROW ? e->i32 : e->i64;
    switch (atom.kind) {
    case AQ_ATOM_LANE:
        return aq_lane_numbers(e, element, x->lanes);
    case AQ_ATOM_VARIABLE:
        return atom.value;
    case AQ_ATOM_LANEWISE:
        return form == AQ_MEMO_NARROW
                   ? atom.value
                   : LLVMBuildSExt(e->builder, atom.value,
                                   aq_vector(element, x->lanes), "");
    case AQ_ATOM_QUOTIENT:
    case AQ_ATOM_REMAINDER:
        break;
    }
    LLVMValueRef inner = index_as(x, atom.inner, form);
    LLVMValueRef by = aq_int_of(e, LLVMTypeOf(inner), atom.divisor);
    return atom.kind == AQ_ATOM_QUOTIENT
               ? LLVMBuildUDiv(e->builder, inner, by, "")
               : LLVMBuildURem(e->builder, inner, by, "");
}

/* into + factor * value, `into` may be NULL */
static LLVMValueRef add_times(AqEmit *e, LLVMValueRef into, LLVMValueRef value,
                              int64_t factor)
{
    if (factor != 1)
        value = LLVMBuildMul(e->builder, value,
                             aq_int_of(e, LLVMTypeOf(value), factor), "");
    return into ? LLVMBuildAdd(e->builder, into, value, "") : value;
}

static LLVMValueRef uniform_value(AqExpr *x, AqIndex index)
{
    AqEmit *e = x->e;
    AqSum sum = x->t->sums[index];
    LLVMValueRef value = NULL;
    for (int i = 0; i < sum.count; i++)
        value = add_times(e, value,
                          atom_value(x, sum.terms[i].atom, AQ_MEMO_SCALAR),
                          sum.terms[i].factor);
    if (!value)
        return aq_i64(e, sum.constant);
    return sum.constant
               ? LLVMBuildAdd(e->builder, value, aq_i64(e, sum.constant), "")
               : value;
}

static LLVMValueRef varying_value(AqExpr *x, AqIndex index, AqId form)
{
    AqEmit *e = x->e;
    LLVMTypeRef element = form == AQ_MEMO_NARROW ? e->i32 : e->i64;
    AqIndex part = aq_index_uniform_part(x->t, index);
    LLVMValueRef value = index_as(x, part, AQ_MEMO_SCALAR);
    value = LLVMBuildTrunc(e->builder, value, element, "");
    value = aq_splat(e, value, x->lanes);
    AqSum sum = x->t->sums[index];
    for (int i = 0; i < sum.count; i++)
        if (aq_atom_varies(x->t, sum.terms[i].atom))
            value = add_times(e, value, atom_value(x, sum.terms[i].atom, form),
                              sum.terms[i].factor);
    return value;
}

static LLVMValueRef index_as(AqExpr *x, AqIndex index, AqId form)
{
    AqMemoKey key = {.node = form, .index = {index}};
    LLVMValueRef value = aq_memo_get(x->memo, &key);
    if (value)
        return value;
    int level = aq_index_level(x->t, index);
    int old = aq_place_at(x, level);
    value = form == AQ_MEMO_SCALAR ? uniform_value(x, index)
                                   : varying_value(x, index, form);
    aq_place_back(x, old);
    aq_memo_put(x->memo, &key, value, level);
    return value;
}

LLVMValueRef aq_expr_index_value(AqExpr *x, AqIndex index, bool wide)
{
    if (!aq_varies(x, index))
        return index_as(x, index, AQ_MEMO_SCALAR);
    return index_as(x, index, wide ? AQ_MEMO_WIDE : AQ_MEMO_NARROW);
}

/* ---- memory ---- */

/* Inside a condition that holds for some lanes a uniform offset may lie
 * outside; what is read there is not used. */
static LLVMValueRef safe_offset(AqExpr *x, AqIndex offset, int64_t elements)
{
    LLVMBuilderRef b = x->e->builder;
    LLVMValueRef at = index_as(x, offset, AQ_MEMO_SCALAR);
    if (!x->guarded)
        return at;
    LLVMValueRef last = aq_i64(x->e, elements - 1), zero = aq_i64(x->e, 0);
    LLVMValueRef over = LLVMBuildICmp(b, LLVMIntSGT, at, last, "");
    at = LLVMBuildSelect(b, over, last, at, "");
    LLVMValueRef under = LLVMBuildICmp(b, LLVMIntSLT, at, zero, "");
    return LLVMBuildSelect(b, under, zero, at, "");
}

/* A pattern within one register's reach: one load and a shuffle. */
static LLVMValueRef load_shuffled(AqExpr *x, LLVMTypeRef element,
                                  LLVMValueRef at, const int64_t *offsets,
                                  int64_t lo, int64_t hi)
{
    AqEmit *e = x->e;
    int places[64];
    for (int i = 0; i < x->lanes; i++)
        places[i] = (int)(offsets[i] - lo);
    at = aq_at(e, element, at, aq_i64(e, lo));
    LLVMValueRef mask = aq_constant_mask(e, (int)(hi - lo + 1), x->lanes);
    LLVMValueRef all =
        aq_load_masked(e, aq_vector(element, x->lanes), at, mask);
    return aq_shuffle(e, all, NULL, places, x->lanes);
}

static LLVMValueRef load_pattern(AqExpr *x, LLVMTypeRef element,
                                 LLVMValueRef at, AqIndex offset)
{
    int64_t offsets[64], lo = INT64_MAX, hi = INT64_MIN;
    aq_index_pattern(x->t, offset, offsets);
    for (int i = 0; i < x->lanes; i++) {
        lo = AQ_MIN(lo, offsets[i]);
        hi = AQ_MAX(hi, offsets[i]);
    }
    if (!x->mask && hi - lo < x->lanes)
        return load_shuffled(x, element, at, offsets, lo, hi);
    return aq_gather(x->e, aq_vector(element, x->lanes), at,
                     aq_int_vector(x->e, x->e->i64, offsets, x->lanes),
                     x->mask);
}

LLVMValueRef aq_expr_load(AqExpr *x, LLVMTypeRef element, LLVMValueRef base,
                          AqIndex offset, int64_t elements)
{
    AqEmit *e = x->e;
    int64_t stride;
    AqLaneForm form = aq_index_form(x->t, offset, &stride);
    if (form == AQ_UNIFORM)
        return aq_load(
            e, element,
            aq_at(e, element, base, safe_offset(x, offset, elements)));
    AqIndex start = aq_index_uniform_part(x->t, offset);
    LLVMValueRef at =
        aq_at(e, element, base, index_as(x, start, AQ_MEMO_SCALAR));
    LLVMTypeRef type = aq_vector(element, x->lanes);
    if (form == AQ_STRIDED && stride == 1)
        return aq_load_masked(e, type, at, x->mask);
    if (form != AQ_LANEWISE)
        return load_pattern(x, element, at, offset);
    AqIndex rest = aq_index_add(x->t, offset, aq_index_scale(x->t, start, -1));
    LLVMValueRef lanes = aq_expr_index_value(x, rest, !fits_i32(x->t, rest));
    return aq_gather(e, type, at, lanes, x->mask);
}

static void store_scattered(AqExpr *x, LLVMValueRef base, AqIndex offset,
                            LLVMValueRef value)
{
    AqEmit *e = x->e;
    LLVMTypeRef type = LLVMTypeOf(value);
    LLVMValueRef lanes = aq_expr_index_value(x, offset, true);
    LLVMValueRef places = LLVMBuildGEP2(e->builder, LLVMGetElementType(type),
                                        base, &lanes, 1, "");
    LLVMValueRef mask =
        x->mask ? x->mask : aq_constant_mask(e, x->lanes, x->lanes);
    LLVMTypeRef overload[] = {type, LLVMTypeOf(places)};
    LLVMValueRef args[] = {value, places, aq_i32(e, 4), mask};
    aq_intrinsic(e, "llvm.masked.scatter", overload, 2, args, 4);
}

void aq_expr_store(AqExpr *x, LLVMValueRef base, AqIndex offset,
                   LLVMValueRef value)
{
    AqEmit *e = x->e;
    LLVMTypeRef type = LLVMTypeOf(value);
    LLVMTypeRef element = aq_lanes(type) ? LLVMGetElementType(type) : type;
    int64_t stride;
    AqLaneForm form = aq_index_form(x->t, offset, &stride);
    if (form != AQ_UNIFORM)
        value = aq_splat(e, value, x->lanes);
    else if (aq_lanes(type))
        value = aq_lane(e, value, 0);
    if (form != AQ_UNIFORM && (form != AQ_STRIDED || stride != 1)) {
        store_scattered(x, base, offset, value);
        return;
    }
    AqIndex start = aq_index_uniform_part(x->t, offset);
    LLVMValueRef at =
        aq_at(e, element, base, index_as(x, start, AQ_MEMO_SCALAR));
    aq_store_masked(e, value, at, form == AQ_UNIFORM ? NULL : x->mask);
}

/* ---- sources ---- */

LLVMTypeRef aq_expr_element(const AqExpr *x, AqId id)
{
    return aq_node(x->body, id)->type.element == AQ_I32 ? x->e->i32 : x->e->f32;
}

static LLVMValueRef table_array(AqExpr *x, AqId id)
{
    AqEmit *e = x->e;
    const AqNode *node = aq_node(x->body, id);
    const AqAttr *data = aq_attr(node, AQ_KEY_DATA);
    LLVMTypeRef element = aq_expr_element(x, id);
    int count = data ? data->count : 0;
    LLVMValueRef *values =
        AQ_NEW_ARRAY(e->arena, LLVMValueRef, AQ_MAX(count, 1));
    if (!values) {
        aq_no_memory(e->error, sizeof *values * (size_t)count);
        return LLVMGetUndef(e->pointer);
    }
    for (int i = 0; i < count; i++)
        values[i] = element == e->i32 ? aq_i32(e, (int64_t)data->reals[i])
                                      : LLVMConstReal(e->f32, data->reals[i]);
    LLVMValueRef array = LLVMConstArray(element, values, (unsigned)count);
    LLVMValueRef global = LLVMAddGlobal(e->module, LLVMTypeOf(array), "table");
    LLVMSetInitializer(global, array);
    LLVMSetGlobalConstant(global, true);
    LLVMSetLinkage(global, LLVMPrivateLinkage);
    LLVMSetAlignment(global, 64);
    return global;
}

static LLVMValueRef source_value(AqExpr *x, AqId id, const AqIndex *index)
{
    const AqNode *node = aq_node(x->body, id);
    LLVMValueRef base;
    if (node->op == AQ_OP_arg) {
        base = x->buffers[aq_attr_int(node, AQ_KEY_INDEX, 0)];
    } else {
        if (!x->tables[id])
            x->tables[id] = table_array(x, id);
        base = x->tables[id];
    }
    return aq_expr_load(x, aq_expr_element(x, id), base,
                        aq_expr_offset(x, &node->type, index),
                        aq_elements(&node->type));
}

static LLVMValueRef constant_value(AqExpr *x, AqId id)
{
    double value = aq_attr_real(aq_node(x->body, id), AQ_KEY_VALUE, 0);
    LLVMTypeRef element = aq_expr_element(x, id);
    return element == x->e->i32 ? aq_i32(x->e, (int64_t)value)
                                : LLVMConstReal(element, value);
}

static LLVMValueRef iota_value(AqExpr *x, AqId id, const AqIndex *index)
{
    AqEmit *e = x->e;
    int64_t axis = aq_attr_int(aq_node(x->body, id), AQ_KEY_AXIS, 0);
    LLVMValueRef value = aq_expr_index_value(x, index[axis], false);
    bool varies = aq_lanes(LLVMTypeOf(value)) != 0;
    LLVMTypeRef element = aq_expr_element(x, id);
    LLVMTypeRef type = varies ? aq_vector(element, x->lanes) : element;
    if (element == e->i32)
        return varies ? value : LLVMBuildTrunc(e->builder, value, type, "");
    return LLVMBuildSIToFP(e->builder, value, type, "");
}

/* ---- any node ---- */

static LLVMValueRef no_value(AqExpr *x, AqId id)
{
    return LLVMConstNull(aq_expr_element(x, id));
}

static LLVMValueRef compute(AqExpr *x, AqId id, const AqIndex *index)
{
    const AqNode *node = aq_node(x->body, id);
    unsigned facts = aq_op_info[node->op].facts;
    if (facts & AQ_POINTWISE)
        return aq_expr_pointwise(x, id, index);
    if (facts & AQ_MOVES)
        return aq_expr_moved(x, id, index);
    switch (node->op) {
    case AQ_OP_arg:
    case AQ_OP_table:
        return source_value(x, id, index);
    case AQ_OP_const:
        return constant_value(x, id);
    case AQ_OP_iota:
        return iota_value(x, id, index);
    case AQ_OP_random:
        return aq_expr_random(x, id, index);
    case AQ_OP_gather:
        return aq_expr_gather(x, id, index);
    default:
        aq_fail(x->e->error, AQ_INTERNAL,
                "%s:%d: %s cannot stand inside a kernel as a plain value",
                node->file, node->line, aq_op_info[node->op].name);
        return no_value(x, id);
    }
}

LLVMValueRef aq_expr_value(AqExpr *x, AqId id, const AqIndex *index)
{
    const AqNode *node = aq_node(x->body, id);
    AqMemoKey key = {.node = id};
    int level = 0;
    bool varies = false;
    if (x->e->error->status)
        return no_value(x, id);
    for (int i = 0; i < node->type.rank; i++) {
        key.index[i] = index[i];
        level = AQ_MAX(level, aq_index_level(x->t, index[i]));
        varies = varies || aq_varies(x, index[i]);
    }
    if (x->pinned[id]) {
        level = x->entered;
        LLVMValueRef taken =
            x->hook ? x->hook(x, id, index, x->hook_context) : NULL;
        if (taken)
            return taken;
    }
    if (varies || x->guarded) {
        key.mask = x->mask;
        level = AQ_MAX(level, x->mask_level);
    }
    LLVMValueRef value = aq_memo_get(x->memo, &key);
    if (value)
        return value;
    assert(level <= x->level);
    int old = aq_place_at(x, level);
    value = compute(x, id, index);
    aq_place_back(x, old);
    aq_memo_put(x->memo, &key, value, level);
    return value;
}

LLVMValueRef aq_expr_vector(AqExpr *x, AqId id, const AqIndex *index)
{
    return aq_splat(x->e, aq_expr_value(x, id, index), x->lanes);
}

void aq_expr_match(AqExpr *x, LLVMValueRef *a, LLVMValueRef *b)
{
    if (aq_lanes(LLVMTypeOf(*a)) || aq_lanes(LLVMTypeOf(*b))) {
        *a = aq_splat(x->e, *a, x->lanes);
        *b = aq_splat(x->e, *b, x->lanes);
    }
}
