/* Parameters: made one by one, each with its place in the flat arrays; and the
 * table of them all. */
#include "frontend/dsl/build.h"

#include <string.h>

static const char *const init_name[] = {
    [AQ_INIT_ZEROS] = "zeros",
    [AQ_INIT_ONES] = "ones",
    [AQ_INIT_NORMAL] = "normal",
    [AQ_INIT_UNIFORM] = "uniform",
};

static int64_t end_of(const AqNode *param)
{
    int64_t end =
        aq_attr_int(param, AQ_KEY_OFFSET, 0) + aq_elements(&param->type);
    return (end + AQ_PARAM_ALIGN - 1) / AQ_PARAM_ALIGN * AQ_PARAM_ALIGN;
}

/* The first free offset; NULL, or the parameter that has this name already. */
static const AqNode *place_param(const AqGraph *g, const char *name,
                                 int64_t *offset)
{
    *offset = 0;
    for (AqId id = 0; id < g->count; id++) {
        const AqNode *node = aq_node(g, id);
        if (node->op != AQ_OP_param)
            continue;
        if (strcmp(aq_attr_text(node, AQ_KEY_NAME, ""), name) == 0)
            return node;
        *offset = AQ_MAX(*offset, end_of(node));
    }
    return NULL;
}

static bool is_permutation(AqAxes axes, int rank)
{
    unsigned seen = 0;
    for (int i = 0; i < axes.count; i++)
        if (axes.axis[i] >= 0 && axes.axis[i] < rank)
            seen |= 1u << axes.axis[i];
    return axes.count == rank && seen == (1u << rank) - 1;
}

static bool sensible(AqPlace at, const AqParam *a, const char *name)
{
    AqGraph *g = a->scope.graph;
    if ((unsigned)a->init >= AQ_COUNT(init_name)) {
        aq_complain(at, g, "parameter %s: .init %d is none of AqInit", name,
                    (int)a->init);
        return false;
    }
    if (a->file.count && !is_permutation(a->file, a->shape.rank)) {
        aq_complain(at, g,
                    "parameter %s: .file must name each of its %d dimensions "
                    "once",
                    name, a->shape.rank);
        return false;
    }
    for (int i = 0; i < a->shape.rank; i++)
        if (a->shape.dim[i] < 1) {
            aq_complain(at, g, "parameter %s: dimension %d is %lld", name, i,
                        (long long)a->shape.dim[i]);
            return false;
        }
    return true;
}

AqTensor aq_param_(AqPlace at, AqParam a)
{
    AqGraph *g = aq_enter_scope(&at, a.scope);
    if (!g)
        return aq_wrap(a.scope.graph, AQ_NO_NODE);
    if (!a.name || !*a.name)
        return aq_complain(at, g, "param: a name is needed");
    const char *name = aq_arena_printf(g->arena, "%s%s%s", a.scope.path,
                                       *a.scope.path ? "." : "", a.name);
    if (!name)
        return aq_wrap(g, aq_graph_fail(g, AQ_NO_MEMORY, "memory ended"));
    if (!sensible(at, &a, name))
        return aq_wrap(g, AQ_NO_NODE);
    int64_t offset, file[AQ_MAX_RANK];
    const AqNode *twin = place_param(g, name, &offset);
    if (twin)
        return aq_complain(at, g,
                           "parameter %s exists already, from %s:%d; give "
                           "each layer a scope of its own",
                           name, twin->file, twin->line);
    AqAttr attrs[5] = {
        aq_text(AQ_KEY_NAME, name),
        aq_int(AQ_KEY_OFFSET, offset),
        aq_text(AQ_KEY_INIT, init_name[a.init]),
    };
    int count = 3;
    if (a.init == AQ_INIT_NORMAL || a.init == AQ_INIT_UNIFORM)
        attrs[count++] = aq_real(AQ_KEY_VALUE, a.value);
    for (int i = 0; i < a.file.count; i++)
        file[i] = a.file.axis[i];
    if (a.file.count)
        attrs[count++] = aq_ints(AQ_KEY_FILE, file, a.file.count);
    AqType type = aq_type(AQ_F32, a.shape.rank, a.shape.dim);
    return aq_wrap(g, aq_build(g, AQ_OP_param, &type, NULL, 0, attrs, count));
}

/* ---- the table ---- */

static AqParamInfo describe(const AqGraph *g, AqId id)
{
    const AqNode *node = aq_node(g, id);
    AqParamInfo info = {
        .name = aq_attr_text(node, AQ_KEY_NAME, ""),
        .node = id,
        .type = node->type,
        .offset = aq_attr_int(node, AQ_KEY_OFFSET, 0),
        .init = aq_attr_text(node, AQ_KEY_INIT, "zeros"),
        .value = aq_attr_real(node, AQ_KEY_VALUE, 0),
    };
    for (int i = 0; i < node->type.rank; i++)
        info.file[i] = (int)aq_attr_at(node, AQ_KEY_FILE, i, i);
    return info;
}

const AqParamTable *aq_params(AqGraph *g)
{
    AqParamTable *table = AQ_NEW(g->arena, AqParamTable);
    int count = 0;
    for (AqId id = 0; id < g->count; id++)
        count += g->nodes[id].op == AQ_OP_param;
    AqParamInfo *at = AQ_NEW_ARRAY(g->arena, AqParamInfo, AQ_MAX(count, 1));
    if (!table || !at)
        return NULL;
    table->at = at;
    for (AqId id = 0; id < g->count; id++) {
        if (g->nodes[id].op != AQ_OP_param)
            continue;
        AqParamInfo info = describe(g, id);
        int i = table->count++;
        for (; i > 0 && at[i - 1].offset > info.offset; i--)
            at[i] = at[i - 1];
        at[i] = info;
        table->floats = AQ_MAX(table->floats, end_of(aq_node(g, id)));
        table->trained += aq_elements(&info.type);
    }
    return table;
}

/* ---- initial values ---- */

enum { PIECE = 1 << 16 }; /* floats of a flat array, made by one thread */

typedef struct Start {
    const AqParamTable *table;
    const uint32_t *key;
    float *weights, *average;
} Start;

/* One a name, so that a new layer changes no other's values. */
static uint32_t stream_of(const AqParamInfo *param)
{
    return (uint32_t)aq_hash64(param->name, strlen(param->name));
}

/* Of the block of four that an element is in. */
typedef struct Counter {
    uint32_t sample, block;
} Counter;

static Counter counter_of(int64_t element)
{
    return (Counter){.sample = (uint32_t)(element >> 30),
                     .block = (uint32_t)(element & ((1 << 30) - 1)) / 4};
}

/* Elements first .. last - 1 of one parameter. */
static void draw_few(const AqParamInfo *param, const uint32_t key[2],
                     bool normal, int64_t first, int64_t last, float *out)
{
    uint32_t stream = stream_of(param);
    double drawn[4];
    for (int64_t at = first & ~(int64_t)3; at < last; at += 4) {
        Counter c = counter_of(at);
        if (normal)
            aq_random_normals(key, 0, stream, c.sample, c.block, drawn);
        else
            aq_random_uniforms(key, 0, stream, c.sample, c.block, drawn);
        for (int i = 0; i < 4; i++) {
            double value = normal ? drawn[i] : 2 * drawn[i] - 1;
            if (at + i >= first && at + i < last)
                out[at + i] = (float)(param->value * value);
        }
    }
}

/* Fours that are whole are drawn many at a time. */
static void draw(const AqParamInfo *param, const uint32_t key[2], bool normal,
                 int64_t first, int64_t last, float *out)
{
    int64_t from = (first + 3) & ~(int64_t)3, to = last & ~(int64_t)3;
    if (normal || from >= to) {
        draw_few(param, key, normal, first, last, out);
        return;
    }
    draw_few(param, key, normal, first, from, out);
    for (int64_t at = from, end; at < to; at = end) {
        Counter c = counter_of(at);
        end = AQ_MIN(to, ((at >> 30) + 1) << 30);
        aq_random_spread(key, stream_of(param), c.sample, c.block,
                         (end - at) / 4, param->value, out + at);
    }
    draw_few(param, key, normal, to, last, out);
}

static void start_param(const AqParamInfo *param, const uint32_t key[2],
                        int64_t first, int64_t last, float *out)
{
    bool normal = strcmp(param->init, "normal") == 0;
    if (normal || strcmp(param->init, "uniform") == 0)
        draw(param, key, normal, first, last, out);
    else if (strcmp(param->init, "ones") == 0)
        for (int64_t i = first; i < last; i++)
            out[i] = 1;
}

static void start_piece(void *context, int index)
{
    const Start *start = context;
    const AqParamTable *table = start->table;
    int64_t first = (int64_t)index * PIECE;
    int64_t last = AQ_MIN(first + PIECE, table->floats);
    size_t bytes = (size_t)(last - first) * sizeof(float);
    memset(start->weights + first, 0, bytes);
    for (int i = 0; i < table->count; i++) {
        const AqParamInfo *p = &table->at[i];
        int64_t begin = AQ_MAX(first - p->offset, 0);
        int64_t end = AQ_MIN(last - p->offset, aq_elements(&p->type));
        if (begin < end)
            start_param(p, start->key, begin, end, start->weights + p->offset);
    }
    if (start->average)
        memcpy(start->average + first, start->weights + first, bytes);
}

void aq_params_start(const AqParamTable *table, const uint32_t key[2],
                     int threads, float *weights, float *average)
{
    Start start = {table, key, weights, average};
    int pieces = (int)((table->floats + PIECE - 1) / PIECE);
    aq_parallel(threads, pieces, start_piece, &start);
}

/* ---- files ---- */

void aq_param_file_shape(const AqParamInfo *param, int64_t *shape)
{
    for (int i = 0; i < param->type.rank; i++)
        shape[i] = param->type.dim[param->file[i]];
}

void aq_param_permute(const AqParamInfo *param, bool to_file, const float *from,
                      float *to)
{
    int rank = param->type.rank;
    int64_t stride[AQ_MAX_RANK], jump[AQ_MAX_RANK] = {0}, shape[AQ_MAX_RANK];
    for (int64_t i = rank - 1, step = 1; i >= 0; i--) {
        stride[i] = step;
        step *= param->type.dim[i];
    }
    aq_param_file_shape(param, shape);
    for (int i = 0; i < rank; i++)
        jump[i] = stride[param->file[i]];
    int64_t index[AQ_MAX_RANK] = {0}, ours = 0;
    int64_t elements = aq_elements(&param->type);
    for (int64_t file = 0; file < elements; file++) {
        if (to_file)
            to[file] = from[ours];
        else
            to[ours] = from[file];
        for (int i = rank - 1; i >= 0; i--) {
            ours += jump[i];
            if (++index[i] < shape[i])
                break;
            ours -= jump[i] * shape[i];
            index[i] = 0;
        }
    }
}
