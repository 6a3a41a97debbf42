/* The session: a few pointers into the package and the caller's memories.  Private to native/src. */
#ifndef EK_SESSION_H
#define EK_SESSION_H
#include "edgekit.h"
#include "op.h"

typedef struct ek_table { const uint8_t *base; uint32_t count, stride; } ek_table;

typedef struct ek_package {
    const ek_header *header;
    const char *strs;
    uint32_t strs_bytes, attr_bytes, words, names;
    uint64_t data_bytes, stat_bytes, gdat_bytes;
    const uint32_t *word, *name;
    const uint8_t *attr, *data, *stat, *gdat;
#if EK_UNPACK || EK_KEEP /* 64-bit sessions have one size, whatever a build leaves out */
    const uint8_t *few, *unpacked; /* section UNPK; what it unpacks to, in the session's memory */
    uint64_t few_bytes, unpacked_bytes;
#endif
    ek_table tensors, variants, refs, ops, entries, goldens;
} ek_package;

struct ek_session {
    ek_config cfg;
    ek_package p;
    ek_kernels k;
};

/* An op as ek_run calls it. */
typedef struct ek_slot {
    const ek_op_def *def; /* NULL: this build has no such op */
    ek_ctx c;
#if EK_KEEP
    _Alignas(16) uint8_t kept[EK_KEEP];
#endif
} ek_slot;
/* Bytes of EK_MEM_SESSION: after the session lies a slot for each of its ops, where they keep something. */
#define EK_SESSION_BYTES(ops) ((sizeof(ek_session) + 15) / 16 * 16 + (EK_KEEP ? (size_t)(ops) * sizeof(ek_slot) : 0))

/* Reads header and sections; every table's bytes lie inside the package afterwards, or are still to be unpacked. */
ek_status ek_package_read(ek_package *p, const void *pkg, size_t len);
/* Checks every record against every other: nothing in the tables can point outside. */
ek_status ek_package_check(const ek_package *p);
static inline const void *ek_record(const ek_table *t, uint32_t i) { return t->base + (size_t)i * t->stride; }
static inline const ek_tensor_rec *ek_tensor_get(const ek_package *p, uint32_t i) { return (const ek_tensor_rec *)ek_record(&p->tensors, i); }
static inline const ek_op_rec *ek_op_get(const ek_package *p, uint32_t i) { return (const ek_op_rec *)ek_record(&p->ops, i); }
static inline const ek_entry_rec *ek_entry_get(const ek_package *p, uint32_t i) { return (const ek_entry_rec *)ek_record(&p->entries, i); }
static inline uint32_t ek_kind(const ek_tensor_rec *t) { return t->place & EK_KIND_MASK; }
/* Where in MAIN an op's scratch lies and its bytes; 0 and all bytes where it has a memory of its own. */
static inline uint32_t ek_scratch_at(const ek_package *p, const ek_op_rec *o, uint32_t *bytes)
{
    int placed = (p->header->required & EK_FEATURE_PLACED_SCRATCH) != 0;
    *bytes = placed ? (o->scratch & 0xffff) * EK_UNIT : o->scratch;
    return placed ? (o->scratch >> 16) * EK_UNIT : 0;
}
/* index of a tensor, EK_NONE: absent */
static inline uint32_t ek_operand(const ek_package *p, uint32_t i)
{
    const void *at = ek_record(&p->refs, i);
    if (p->refs.stride == 4)
        return *(const uint32_t *)at;
    uint32_t r = *(const uint16_t *)at;
    return r == 0xffffu ? EK_NONE : r;
}
#if EK_UNPACK
/* Unpacks constants and tables to the end of the session's memory, and takes the sections that lie there. */
ek_status ek_package_unpack(ek_package *p, uint8_t *memory_end);
/* Unpacks segments to `to`, which has `room` bytes.  0: the segments do not fill it, or one is none. */
int ek_unpack(const uint8_t *segments, uint64_t bytes, uint8_t *to, uint64_t room);
/* whether a variant lies in what was unpacked, not in DATA */
static inline int ek_unpacked(const ek_package *p, const ek_variant *v)
{
    return p->variants.stride >= sizeof *v && v->encoding == EK_ENC_UNPACKED;
}
#endif
/* elements, bytes of a tensor that is not packed */
uint32_t ek_tensor_count(const ek_package *p, const ek_tensor_rec *t);
uint32_t ek_tensor_bytes(const ek_package *p, const ek_tensor_rec *t);
uint32_t ek_variant_encoding(const ek_package *p, const ek_variant *v); /* EK_ENC_PLAIN of EK_ENC_UNPACKED too */
/* names: "" in packages without them */
const char *ek_tensor_name(const ek_package *p, uint32_t tensor);
const char *ek_op_name(const ek_package *p, uint32_t op);
ek_status ek_fail(const ek_session *s, ek_status e);
#endif
