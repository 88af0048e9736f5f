/* A kernel as bytes: what its code depends on, and nothing else. */
#include "codegen/emit.h"

#include <string.h>

static void add_int(AqText *key, int64_t value)
{
    aq_text_bytes(key, &value, sizeof value);
}

static void add_type(AqText *key, const AqType *type)
{
    add_int(key, type->element);
    add_int(key, type->rank);
    aq_text_bytes(key, type->dim, sizeof type->dim[0] * (size_t)type->rank);
}

static void add_attr(AqText *key, const AqAttr *attr)
{
    add_int(key, attr->key);
    add_int(key, attr->count);
    switch (aq_key_kind[attr->key]) {
    case AQ_INT:
        add_int(key, attr->integer);
        break;
    case AQ_REAL:
        aq_text_bytes(key, &attr->real, sizeof attr->real);
        break;
    case AQ_TEXT:
        aq_text_bytes(key, attr->text, strlen(attr->text) + 1);
        break;
    case AQ_INTS:
        aq_text_bytes(key, attr->ints, sizeof(int64_t) * (size_t)attr->count);
        break;
    case AQ_REALS:
        aq_text_bytes(key, attr->reals, sizeof(double) * (size_t)attr->count);
        break;
    case AQ_BODY:
        aq_body_key(attr->body, key);
        break;
    }
}

static void add_node(AqText *key, const AqNode *node)
{
    add_int(key, node->op);
    add_type(key, &node->type);
    add_int(key, node->n_inputs);
    aq_text_bytes(key, node->inputs, sizeof(AqId) * (size_t)node->n_inputs);
    add_int(key, node->n_attrs);
    for (int i = 0; i < node->n_attrs; i++)
        add_attr(key, &node->attrs[i]);
}

void aq_body_key(const AqGraph *body, AqText *key)
{
    add_int(key, body->count);
    for (AqId id = 0; id < body->count; id++)
        add_node(key, aq_node(body, id));
    add_int(key, body->n_outputs);
    for (int i = 0; i < body->n_outputs; i++)
        add_int(key, body->outputs[i].node);
}

void aq_kernel_key(const AqKernel *kernel, AqText *key)
{
    /* the numbers of the kernel's own inputs do not matter, only how many */
    AqNode node = *kernel->node;
    add_int(key, node.n_inputs);
    node.n_inputs = 0;
    add_node(key, &node);
}
