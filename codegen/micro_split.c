/* The register tile on the processor's matrix unit: 32 rows by two vectors of
 * columns in four tile registers of 16 by 16, of operands that are split
 * (split.h).  Parts are taken in such an order that from one product to the
 * next only one operand changes:
 *
 *   for each chunk:  m m, m h, l h, h h, h m, h l  (of A, of B)
 */
#include "codegen/contract.h"

enum {
    SIDE = 16,  /* rows and words of a tile register */
    SUMS = 0,   /* tile registers: 2 by 2 sums, */
    OF_A = 4,   /* two of A */
    OF_B = 6,   /* and two of B */
    ACROSS = 2, /* registers of sums side by side */
    BYTES = 4,
    PART_B = SIDE * SIDE, /* floats of a part of B */
};

typedef struct Tile {
    AqEmit *e;
    const AqMicroKey *key;
    int down, across; /* tile registers of sums */
    int first;        /* vector of the strip */
} Tile;

static LLVMValueRef number(AqEmit *e, int64_t value)
{
    return LLVMConstInt(e->i8, (unsigned long long)value, false);
}

/* ---- the unit's instructions ---- */

/* What the tile registers are: palette 1, all of 16 rows of 64 bytes. */
static LLVMValueRef configuration(AqEmit *e)
{
    enum { SIZE = 64, REGISTERS = 8, WIDTHS = 16, HEIGHTS = 48 };
    unsigned char bytes[SIZE] = {[0] = 1};
    LLVMValueRef values[SIZE];
    for (int i = 0; i < REGISTERS; i++) {
        bytes[WIDTHS + 2 * i] = SIDE * BYTES;
        bytes[HEIGHTS + i] = SIDE;
    }
    for (int i = 0; i < SIZE; i++)
        values[i] = number(e, bytes[i]);
    LLVMValueRef constant = LLVMConstArray(e->i8, values, SIZE);
    LLVMValueRef global =
        LLVMAddGlobal(e->module, LLVMTypeOf(constant), "tiles");
    LLVMSetInitializer(global, constant);
    LLVMSetGlobalConstant(global, true);
    LLVMSetLinkage(global, LLVMPrivateLinkage);
    LLVMSetAlignment(global, SIZE);
    return global;
}

static void instruction(AqEmit *e, const char *name, LLVMValueRef *args,
                        int count)
{
    aq_intrinsic(e, name, NULL, 0, args, count);
}

/* With another program on the core's other hyperthread the unit is twice as
 * slow where its instructions stand close to each other: see README.md. */
static void pause(AqEmit *e)
{
    static const char nops[] = "nop\nnop\nnop\nnop\nnop\nnop\nnop\nnop";
    LLVMTypeRef type = LLVMFunctionType(e->nothing, NULL, 0, false);
    LLVMValueRef code =
        LLVMGetInlineAsm(type, (char *)nops, sizeof nops - 1, (char *)"", 0,
                         true, false, LLVMInlineAsmDialectATT, false);
    LLVMBuildCall2(e->builder, type, code, NULL, 0, "");
}

static void move(AqEmit *e, const char *name, int tile, LLVMValueRef at,
                 int64_t stride)
{
    LLVMValueRef args[] = {number(e, tile), at, aq_i64(e, stride * BYTES)};
    instruction(e, name, args, AQ_COUNT(args));
}

static void load(AqEmit *e, int tile, LLVMValueRef at, int64_t stride)
{
    move(e, "llvm.x86.tileloadd64", tile, at, stride);
    pause(e);
}

static void multiply(AqEmit *e, int sum, int a, int b)
{
    LLVMValueRef args[] = {number(e, sum), number(e, a), number(e, b)};
    instruction(e, "llvm.x86.tdpbf16ps", args, AQ_COUNT(args));
    pause(e);
}

/* ---- sums ---- */

static int sum_register(int row, int column)
{
    return SUMS + row * ACROSS + column;
}

static LLVMValueRef sum_place(const Tile *t, int row, int column)
{
    AqEmit *e = t->e;
    return aq_float_at(e, aq_param(e, AQ_MICRO_TILE),
                       aq_i64(e, (int64_t)row * SIDE * t->key->columns +
                                     (int64_t)(t->first + column) * SIDE));
}

static void store_sums(const Tile *t)
{
    for (int r = 0; r < t->down; r++)
        for (int c = 0; c < t->across; c++)
            move(t->e, "llvm.x86.tilestored64", sum_register(r, c),
                 sum_place(t, r, c), t->key->columns);
}

/* Those in the tile if there are `more`, else zeros. */
static void start_sums(const Tile *t)
{
    AqEmit *e = t->e;
    LLVMBasicBlockRef old = aq_emit_block(e, "old");
    LLVMBasicBlockRef fresh = aq_emit_block(e, "fresh");
    LLVMBasicBlockRef go = aq_emit_block(e, "go");
    LLVMValueRef more = LLVMBuildICmp(
        e->builder, LLVMIntNE, aq_param(e, AQ_MICRO_MORE), aq_i64(e, 0), "");
    LLVMBuildCondBr(e->builder, more, old, fresh);
    LLVMPositionBuilderAtEnd(e->builder, old);
    for (int i = 0; i < t->down * t->across; i++)
        load(e, sum_register(i / t->across, i % t->across),
             sum_place(t, i / t->across, i % t->across), t->key->columns);
    LLVMBuildBr(e->builder, go);
    LLVMPositionBuilderAtEnd(e->builder, fresh);
    for (int i = 0; i < t->down * t->across; i++) {
        LLVMValueRef sum =
            number(e, sum_register(i / t->across, i % t->across));
        instruction(e, "llvm.x86.tilezero", &sum, 1);
    }
    LLVMBuildBr(e->builder, go);
    LLVMPositionBuilderAtEnd(e->builder, go);
}

/* ---- a chunk ---- */

static void load_a(const Tile *t, LLVMValueRef a, int part)
{
    AqEmit *e = t->e;
    for (int r = 0; r < t->down; r++)
        load(
            e, OF_A + r,
            aq_float_at(
                e, a, aq_i64(e, (int64_t)r * SIDE * t->key->row + part * SIDE)),
            t->key->row);
}

static void load_b(const Tile *t, LLVMValueRef b, int part)
{
    AqEmit *e = t->e;
    for (int c = 0; c < t->across; c++)
        load(e, OF_B + c,
             aq_float_at(
                 e, b,
                 aq_i64(e, ((int64_t)(t->first + c) * AQ_SPLIT_PARTS + part) *
                               PART_B)),
             SIDE);
}

static void multiply_parts(const Tile *t)
{
    for (int r = 0; r < t->down; r++)
        for (int c = 0; c < t->across; c++)
            multiply(t->e, sum_register(r, c), OF_A + r, OF_B + c);
}

static void add_chunk(const Tile *t, LLVMValueRef a, LLVMValueRef b)
{
    enum { H, M, L };
    static const struct {
        int a, b;
    } order[] = {{M, M}, {M, H}, {L, H}, {H, H}, {H, M}, {H, L}};
    for (int i = 0; i < AQ_COUNT(order); i++) {
        if (i == 0 || order[i].a != order[i - 1].a)
            load_a(t, a, order[i].a);
        if (i == 0 || order[i].b != order[i - 1].b)
            load_b(t, b, order[i].b);
        multiply_parts(t);
    }
}

/* Asks for lines that will be read later, into L2: one a term, in all. */
static LLVMValueRef fetch_ahead(const Tile *t, LLVMValueRef ahead)
{
    int groups = (t->key->vectors + ACROSS - 1) / ACROSS;
    for (int i = 0; i < AQ_SPLIT_TERMS / groups; i++)
        ahead = aq_emit_fetch_ahead(t->e, ahead);
    return ahead;
}

/* All chunks for the vectors from t->first on; where the next line ahead is. */
static LLVMValueRef run_over_chunks(const Tile *t, LLVMValueRef ahead)
{
    AqEmit *e = t->e;
    LLVMBuilderRef builder = e->builder;
    LLVMValueRef zero = aq_i64(e, 0), terms = aq_param(e, AQ_MICRO_K);
    LLVMBasicBlockRef before = LLVMGetInsertBlock(builder);
    LLVMBasicBlockRef skip = aq_only_if_less(e, zero, terms);
    AqLoop loop;
    aq_loop_begin(e, &loop, zero, terms, AQ_SPLIT_TERMS);
    int a_at = aq_loop_carry(e, &loop, aq_param(e, AQ_MICRO_A));
    int b_at = aq_loop_carry(e, &loop, aq_param(e, AQ_MICRO_B));
    int ahead_at = aq_loop_carry(e, &loop, ahead);
    LLVMValueRef a = loop.carried[a_at], b = loop.carried[b_at];
    add_chunk(t, a, b);
    loop.next[a_at] = aq_float_at(e, a, aq_i64(e, AQ_SPLIT_FLOATS));
    loop.next[b_at] = aq_at(
        e, e->f32, b, aq_i64(e, (int64_t)t->key->columns * AQ_SPLIT_FLOATS));
    loop.next[ahead_at] = fetch_ahead(t, loop.carried[ahead_at]);
    aq_loop_end(e, &loop);
    LLVMBasicBlockRef last = LLVMGetInsertBlock(builder);
    aq_go_on(e, skip);
    LLVMValueRef end = LLVMBuildPhi(builder, e->pointer, "");
    LLVMAddIncoming(end, &ahead, &before, 1);
    LLVMAddIncoming(end, &loop.next[ahead_at], &last, 1);
    return end;
}

/* The function alone may use the matrix unit. */
static void allow_tiles(AqEmit *e)
{
    static const char name[] = "target-features";
    static const char features[] = "+amx-tile,+amx-bf16";
    LLVMAttributeRef attribute = LLVMCreateStringAttribute(
        e->context, name, sizeof name - 1, features, sizeof features - 1);
    LLVMAddAttributeAtIndex(
        e->function, (LLVMAttributeIndex)LLVMAttributeFunctionIndex, attribute);
}

AqStatus aq_emit_micro_split(AqEmit *e, const void *key)
{
    Tile t = {.e = e, .key = key};
    aq_emit_micro_function(e);
    allow_tiles(e);
    LLVMValueRef tiles = configuration(e);
    instruction(e, "llvm.x86.ldtilecfg", &tiles, 1);
    LLVMValueRef ahead = aq_param(e, AQ_MICRO_AHEAD);
    t.down = t.key->rows;
    for (; t.first < t.key->vectors; t.first += ACROSS) {
        t.across = AQ_MIN(ACROSS, t.key->vectors - t.first);
        start_sums(&t);
        ahead = run_over_chunks(&t, ahead);
        store_sums(&t);
    }
    instruction(e, "llvm.x86.tilerelease", NULL, 0);
    LLVMBuildRetVoid(e->builder);
    return AQ_OK;
}
