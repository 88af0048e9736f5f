/* Private to dot*.c: a graph as boxes on a page.
 *
 * Words.  A note is a constant or a parameter: it has no box, and is told in
 * the text of those that use it.  A group is a scope within a phase; the groups
 * are trees.  A twin is the node (or group) that stands for its equals where
 * repeated blocks are folded.  A box is what is drawn; a segment of a box is
 * one of the parts into which it falls where a path leaves and enters again. */
#ifndef AQ_DOT_H
#define AQ_DOT_H

#include "ir/ir.h"

/* DOT_OUTSIDE: inputs of a group that are told apart. */
enum { DOT_DEEPEST = 8, DOT_NOWHERE = -1, DOT_OUTSIDE = 64 };

/* The columns of a training step. */
typedef enum DotPhase {
    DOT_FORWARD,  /* what the loss depends on; everything if there is none */
    DOT_BACKWARD, /* the rest, in scopes that the forward has as well */
    DOT_UPDATE,   /* the rest: the optimizer */
    DOT_PHASES
} DotPhase;

/* By how much it says about a box that holds several. */
typedef enum DotKind {
    DOT_MOVEMENT,
    DOT_POINTWISE,
    DOT_RANDOM,
    DOT_LOOKUP,
    DOT_REDUCTION,
    DOT_CONTRACTION,
    DOT_ATTENTION,
    DOT_STATE, /* inputs and states, and what updates states */
    DOT_KINDS
} DotKind;

typedef struct DotGroup {
    DotPhase phase;
    int parent, depth; /* a phase's root: DOT_NOWHERE, 0 */
    int children;
    const char *name;  /* "resnets.0" */
    const char *scope; /* "down_blocks.0.resnets.0" */
    int count;         /* nodes in it and below */
    AqId *nodes;       /* those, in order */
    uint64_t hash;     /* of its structure */
    AqId *outside;     /* what it reads, in order of appearance */
    int n_outside;
    int run, copy;    /* which run of equals (0: none), and which of them */
    int twin, times;  /* the first copy's number; how many there are */
    const char *last; /* first copy: the name of the last */
} DotGroup;

typedef enum DotRole {
    DOT_WHOLE,  /* a group with all below it */
    DOT_OWN,    /* what lies in a group but not below */
    DOT_CHAIN,  /* pointwise work and movement of a group */
    DOT_OP,     /* one node, with its results */
    DOT_SOURCE, /* an input or a state */
    DOT_SINK,   /* an output */
    DOT_STUB,   /* something outside the scope that is drawn */
} DotRole;

typedef struct DotBox {
    DotRole role;
    DotPhase phase;
    int group, segment;
    AqId first;
    int nodes, kernels;
    DotKind kind;
    double flops, seconds;
    int64_t parameters;
    int edges;                 /* first leaving, DOT_NOWHERE */
    int leave, enter;          /* edges within the picture */
    bool source_hub, sink_hub; /* so many edges that they are told in text */
    bool drawn;
    int rank; /* longest path to it */
} DotBox;

typedef struct DotEdge {
    int from, to, next;
    int tensors, copies; /* different ones; with those of folded equals */
    AqType type;         /* of the largest */
    bool told;           /* in text */
} DotEdge;

typedef struct Dot {
    const AqGraph *graph;
    const AqDotOptions *options;
    AqArena *arena;
    AqError *error;
    bool *live, *note;
    uint64_t *constant; /* hash of a value known beforehand; 0: it is not */
    DotPhase *phase;
    int *group;                    /* of a node; DOT_NOWHERE */
    AqId *twin;                    /* of a node */
    int (*place)[DOT_DEEPEST + 1]; /* number in its groups, by depth */
    DotGroup *groups;
    int n_groups, groups_capacity, runs;
    bool *torn;  /* group: it lies before and behind others */
    int base;    /* depth of the scope that is drawn */
    int deepest; /* of the groups that are drawn */
    /* for one depth */
    int depth;
    int *box;
    int *under; /* boxes in a group and below */
    DotBox *boxes;
    int n_boxes, boxes_capacity, drawn;
    DotEdge *edges;
    int n_edges, edges_capacity;
    bool bodies; /* kernels are drawn around their bodies */
} Dot;

static inline const DotGroup *aq_dot_group(const Dot *d, int group)
{
    return &d->groups[group];
}

/* dot_scopes.c: phases and groups, and all that dot_fold.c says of them. */
bool aq_dot_scopes(Dot *d);
/* Does the group lie in the scope that is drawn? */
bool aq_dot_inside(const Dot *d, int group);

/* dot_fold.c: what is known beforehand; which groups are equal, or torn. */
void aq_dot_constants(Dot *d);
bool aq_dot_fold(Dot *d);

/* dot_boxes.c, dot_edges.c: boxes and edges, for d->depth. */
bool aq_dot_boxes(Dot *d);
bool aq_dot_edges(Dot *d);
/* Grows an array of the arena; false when memory ends. */
bool aq_dot_reserve(Dot *d, void **array, int count, int *capacity,
                    size_t size);

/* dot_text.c: text for HTML-like labels, and within quotes */
void aq_dot_escape(AqText *out, const char *text);
void aq_dot_quote(AqText *out, const char *text);

/* A list of words, each with how often it came. */
typedef struct DotWords {
    AqText *at;
    int *times;
    int count, capacity;
} DotWords;

/* Takes the word over; `once`: counts it where it is there already. */
void aq_dot_add_word(DotWords *words, AqText *word, bool once);
/* Joined by commas into lines; beyond `most_lines` they are counted. */
void aq_dot_print_words(const DotWords *words, AqText *out, int most_lines);
void aq_dot_free_words(DotWords *words);

/* dot_body.c: kernels around their bodies, where those are few. */
void aq_dot_choose_bodies(Dot *d);
bool aq_dot_has_body(const Dot *d, int box);
void aq_dot_write_body(const Dot *d, AqText *out, int box);
/* Marks the kinds of its operations. */
void aq_dot_body_kinds(const Dot *d, int box, bool *there);
/* The name of what an edge that enters, or leaves, the box is drawn to. */
void aq_dot_port(const Dot *d, AqText *out, int box, bool leaves);

/* dot_label.c: what stands in a box. */
/* "mul 0.25"; and the number behind reshapes and broadcasts, if it is one. */
void aq_dot_step(const AqGraph *g, AqId id, AqText *out);
bool aq_dot_constant_value(const AqGraph *g, AqId id, double *value);
DotKind aq_dot_kind(const AqGraph *graph, AqId id);
void aq_dot_shape(const Dot *d, AqText *out, const AqType *type);
void aq_dot_label(const Dot *d, AqText *out, int box);
/* "resnets.0–1 ×2", or more of the scope; relative to the clusters around. */
void aq_dot_group_name(const Dot *d, AqText *out, int group);
/* Has an opened group a cluster of its own?  One box needs none. */
bool aq_dot_has_cluster(const Dot *d, int group);
/* The box's name, for the texts of others. */
void aq_dot_name(const Dot *d, AqText *out, int box);

/* dot_write.c */
void aq_dot_paint(AqText *out, DotKind kind); /* attributes: its colours */
void aq_dot_write(const Dot *d, AqText *out);

#endif
