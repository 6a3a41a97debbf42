/* What an op sees: its operands, attributes, scratch and the kernels of this CPU.
 *
 * An op is one file native/ops/<op>.c that defines `const ek_op_def ek_op_<op>`.  `check` runs once in ek_open and
 * must refuse everything that could make `run` touch memory outside its operands; `run` cannot fail except on
 * run-time values.  Custom ops: the same structure in a list of your own (ek_config.ops). */
#ifndef EK_OP_H
#define EK_OP_H
#include "edgekit.h"
#include "format.h"
#include "kernels.h"
#include "qmath.h"

/* Bytes of the session in which an op keeps what its `check` found, so that runs need not find it again.  0 on 32-bit targets, which have
 * no memory for it. */
#if UINTPTR_MAX > 0xffffffffu
#define EK_KEEP 512
#else
#define EK_KEEP 0
#endif

/* An operand: where it lies now and what the package says of it. */
typedef struct ek_view {
    uint8_t *data;             /* NULL: absent or packed */
    const ek_tensor_rec *rec;  /* NULL: absent */
    const uint32_t *dims;
    uint32_t rank, dtype, bytes;
    uint32_t count;            /* elements */
    float scale;
    int32_t zero;
    uint32_t is_const;
} ek_view;

typedef struct ek_ctx {
    ek_session *s;
    const ek_op_rec *rec;
    const void *attr;
    const ek_kernels *k;
    uint8_t *scratch;          /* `granted` bytes for thread 0, the next for thread 1, ... */
    uint32_t granted;
    const struct ek_after *after; /* what a convolution inside another op does with its outputs, see gemm.h */
    uint32_t threads;
#if EK_KEEP
    void *kept;                /* EK_KEEP bytes, aligned to 16; NULL: a convolution inside another op */
#endif
} ek_ctx;

struct ek_op_def {
    uint16_t code, version;
    uint32_t attr_bytes;
    uint8_t min_in, max_in, min_out, max_out; /* 255: any number */
    const char *name;
    int (*check)(const ek_ctx *c);       /* 1: valid */
    int (*run)(const ek_ctx *c);         /* 1: done, 0: a run-time value is out of range */
    unsigned (*kernel)(const ek_ctx *c); /* EK_K_* slot it uses, for the report; NULL: portable */
};

/* Operand i of the op; rec == NULL where absent or past the end. */
ek_view ek_in(const ek_ctx *c, uint32_t i);
ek_view ek_out(const ek_ctx *c, uint32_t i);
/* Packed weights of operand i in the layout this CPU likes best: *v is set and its blob returned; rec->dims are the
 * logical shape.  NULL where the operand is not packed. */
const uint8_t *ek_packed(const ek_ctx *c, uint32_t i, uint32_t encoding, unsigned nr, unsigned kr, unsigned xoff, const ek_variant **v);
/* EK_ENC_*, plus N << 8 */
uint32_t ek_encoding(const ek_ctx *c, const ek_variant *v);
/* Calls fn(arg, tile, thread) for all tiles, by the port's threads where there are any. */
void ek_for(const ek_ctx *c, ek_tile_fn fn, void *arg, uint32_t tiles);
/* Items of a tile, `most` at most, such that the thread with the most has as few as it can. */
uint32_t ek_even(const ek_ctx *c, uint32_t items, uint32_t most);
/* Calls fn(arg, first, n) for parts of [0, count), by threads where that pays: an item writes `bytes`.  All parts but the last are
 * multiples of `unit`: EK_VECTOR for elements, so that each meets the same code of a kernel whatever the number of threads. */
typedef void (*ek_span_fn)(const void *arg, uint32_t first, uint32_t n);
void ek_spans(const ek_ctx *c, ek_span_fn fn, const void *arg, uint32_t count, uint32_t unit, uint64_t bytes);
enum { EK_VECTOR = 256 };
enum { EK_SHARE = 8192 }; /* bytes written, elementwise, in about a microsecond: handing a tile to a thread costs a third of one */

/* `check` leaves in *v, of at most EK_KEEP bytes, what `run` will ask ek_kept for.  NULL: nothing is kept here. */
static inline void ek_keep(const ek_ctx *c, const void *v, size_t bytes)
{
#if EK_KEEP
    if (c->kept)
        __builtin_memcpy(c->kept, v, bytes);
#else
    (void)c, (void)v, (void)bytes;
#endif
}
#define EK_KEEPS(type) _Static_assert(!EK_KEEP || sizeof(type) <= EK_KEEP, "an op keeps more than its slot holds")

static inline void *ek_kept(const ek_ctx *c)
{
#if EK_KEEP
    return c->kept;
#else
    (void)c;
    return 0;
#endif
}

static inline uint8_t *ek_scratch(const ek_ctx *c, unsigned thread) { return c->scratch + (size_t)thread * c->granted; }

/* ---- checks ----------------------------------------------------------------------------------- */
uint32_t ek_dtype_bytes(uint32_t dtype); /* 0 for packed and sub-byte types */
int ek_same_shape(const ek_view *a, const ek_view *b);
/* a present operand of that type and rank (rank 0xff: any) */
int ek_is(const ek_view *v, uint32_t dtype, uint32_t rank);
/* scale finite and in (0, 2^64), zero in int8 range */
int ek_quant_ok(const ek_view *v);
int ek_finite(float x);
/* lo <= hi, whole, finite, and zero + lo .. zero + hi within int8 */
int ek_bounds_ok(float lo, float hi, int32_t zero);
/* the variant's blob holds n outputs of k inputs and its block sizes are sane */
int ek_variant_ok(const ek_variant *v, uint32_t dtype, uint64_t n, uint64_t k, uint32_t groups);
#if EK_UNPACK
/* The constants of n outputs that lie apart from a variant's blob, which holds one GEMM of n outputs and k inputs; NULL where
 * either does not fit. */
const uint8_t *ek_apart(const ek_ctx *c, const ek_variant *v, uint64_t n, uint64_t k);
#endif
uint64_t ek_div_u64(uint64_t n, uint32_t d); /* n / d; d is not 0 */
static inline uint32_t ek_up(uint32_t x, uint32_t to) { return (x + to - 1) / to * to; }
static inline uint32_t ek_min_u32(uint32_t a, uint32_t b) { return a < b ? a : b; }
#endif
