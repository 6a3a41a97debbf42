/* The kernel table: portable C fills it, an ISA paints over what it does better, bit for bit on exact kernels.
 *
 * A kernel is an inner loop that knows nothing of packages.  Slots may be replaced one by one; `isa` remembers whose
 * function each slot holds, for the report.  Layouts: see ek_variant in format.h. */
#ifndef EK_KERNELS_H
#define EK_KERNELS_H
#include <stddef.h>
#include <stdint.h>
#include "isas.h"
#ifdef __has_include
#if __has_include("ek_build.h") /* what a build for one model leaves out: `edgekit build --format c` */
#include "ek_build.h"
#endif
#endif

/* Microcontrollers have no memory for padded bands of rows: their builds leave out the code that makes them. */
#if defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'
#define EK_BANDS 0
#else
#define EK_BANDS 1
#endif
/* 1: constants in few bits are unpacked when a session opens.  Microcontrollers read theirs from flash. */
#ifndef EK_UNPACK
#define EK_UNPACK EK_BANDS
#endif

/* y[m][n] = act(sum_k a[m][k] * w[n][k] + bias[n]).  One block of `nr` outputs is
 * [bias nr][scale nr, int8 only][ceil(k/kr)][nr][kr]; rows of a are readable up to k rounded up to kr. */
typedef struct ek_gemm {
    const void *a;       /* (m, k) int8 or float, row stride lda elements */
    ptrdiff_t lda;
    const uint8_t *w;    /* packed blocks, 16-byte aligned */
    void *y;             /* (m, n) int8 or float, row stride ldy elements */
    ptrdiff_t ldy;
    uint32_t m, n, k;
    uint16_t nr, kr;
    int32_t pairs;       /* weights in EK_ENC_PAIRS */
    int32_t xoff;        /* added to every int8 of a (0 or 128) */
    int32_t w_zero;      /* weight zero point: acc -= w_zero * sum_k(a + xoff) */
    float lo, hi;        /* int8: relative to zero, whole numbers */
    int32_t zero;        /* int8: output zero point */
    const float *row_scale; /* gemm_dyn: (m) activation scale */
    /* Rows as ek_kernels.widen makes them, where a is NULL: pairs of rows, each [sum of both rows][k / 4][4 words].  Else room
     * for one such pair, k a multiple of 4; or 0: rows are taken one by one. */
    uint32_t *wide;
    /* Windows read where they lie, only by kernels that set ek_kernels.windows, or that widen them and then m is at most
     * width; else 0.
     * Row m starts at a + m / width * line + m % width * lda; its k inputs are runs of `segment`, `gap` apart. */
    uint32_t width, segment; /* segment: a multiple of kr, or k at most ek_kernels.odd_k */
    ptrdiff_t line, gap;     /* elements */
#if EK_UNPACK
    const uint8_t *heads; /* gemm_s8 where ek_kernels.apart: [bias nr][scale nr] of each block, which then are not in w; else 0 */
#endif
    /* gemm_sparse: EK_ENC_NM or EK_ENC_BLOCKS of format.h; rows of the former are readable up to k rounded up to EK_CHUNK.
     * A block of nr outputs is [bias nr][scale nr], then
     *   NM: of each chunk of inputs slots / kr times [nr][kr] places in the chunk, [nr][kr] weights;
     *   BLOCKS: count (4 bytes), `count` places / kr (2 bytes each, padded to 4 bytes), [count][nr][kr] weights.
     * Packages may be hostile: a place is taken modulo EK_CHUNK, or is at most the last one of the row. */
    uint8_t encoding, slots; /* gemm_s8 and gemm_dyn: EK_ENC_PLAIN or EK_ENC_PAIRS */
} ek_gemm;

/* Depthwise over `count` output pixels whose taps all exist.
 * Tap (i, j) of pixel p, channel c: x[p * step + i * dy + j * dx + c].  `rows` such runs lie row_step apart in x and
 * follow each other in y; only kernels that set ek_kernels.dw_rows are given more than one.  Weights: blocks of `nr` channels,
 * [bias nr][scale nr, int8 only][kh * kw][nr]. */
typedef struct ek_dw {
    const void *x;
    const uint8_t *w;
    void *y;             /* (rows, count, channels) */
    ptrdiff_t step, dy, dx, row_step; /* elements */
    uint32_t rows, count, channels, kh, kw;
    uint32_t nr;
    int32_t w_zero;
    float lo, hi;
    int32_t zero;
    /* A whole image, for ek_kernels.dw_image and dw_edges alone: x is its pixel (0, 0), `rows` and `count` are the output's.
     * Tap (i, j) of pixel (r, p) lies in row r * row_stride + i * dy / (columns * channels) - top, column (p * step + j * dx) /
     * channels - left; outside (h, columns) it is `fill`, the zero point.  For dw_edges top wraps below 0 inside an image. */
    uint32_t h, columns, row_stride, top, left;
    int32_t fill;
    uint8_t *room;       /* scratch, aligned to 4 */
    uint32_t room_bytes;
} ek_dw;

/* int16 rows by int8 weights, exact sums: blocks of EK_NR16 outputs, [bias][scale][k / EK_KR16][EK_NR16][EK_KR16], k rounded up
 * to EK_KR16, to which rows are readable.  EK_CHUNK16 products fit 32 bits, with a bias below 2^30 too. */
enum { EK_NR16 = 8, EK_KR16 = 2, EK_CHUNK16 = 256 };
typedef struct ek_gemm16 {
    const int16_t *a;    /* (m, k), row stride lda elements */
    const uint8_t *w;
    void *y;             /* (m, n) int16 or int8, row stride ldy elements */
    ptrdiff_t lda, ldy;
    uint32_t m, n, k;
    uint32_t size;       /* bytes of an output: 2 or 1 */
    float lo, hi;        /* relative to zero */
    int32_t zero;
} ek_gemm16;
/* One pixel of a depthwise convolution: blocks of EK_NR16 channels, [bias][scale][count][EK_NR16]. */
typedef struct ek_dw16 {
    const int16_t *const *taps; /* `count` pixels of `channels` */
    const uint8_t *w;
    void *y;
    uint32_t count, channels, size;
    float lo, hi;
    int32_t zero;
} ek_dw16;

typedef struct ek_add_s8 { int32_t ma, mb, bias; uint32_t shift; int32_t lo, hi, zero; } ek_add_s8;

typedef struct ek_mul_s8 { int32_t a_zero, b_zero; float scale, lo, hi; int32_t zero; } ek_mul_s8;

/* A row of softmax in int8: 256 exponentials by distance from the largest, ops/softmax.c. */
typedef struct ek_softmax { const uint32_t *table; uint32_t n; float scale; int32_t zero; } ek_softmax;
/* A row of layer_norm; gamma and beta may be NULL in float.  int8: eps is of the stored integers, the zero points. */
typedef struct ek_norm { const float *gamma, *beta; uint32_t n; int rms; float eps; int32_t x_zero, zero; } ek_norm;

/* Where Winograd's transform writes 4x4 outputs: the first `rows` and `cols`, this many floats apart. */
typedef struct ek_wino_out { ptrdiff_t row, col; uint32_t rows, cols; float lo, hi; } ek_wino_out;

/* Widened rows are for the DSP extension where no better one overlays it; windows for Helium and hosted systems. */
#if !EK_BANDS && defined(__ARM_FEATURE_DSP) && !defined(__ARM_FEATURE_MVE)
#define EK_WIDE 1
#else
#define EK_WIDE 0
#endif

typedef struct ek_kernels {
    void (*gemm_s8)(const ek_gemm *g);   /* int8 x int8 -> int8 */
    void (*gemm_dyn)(const ek_gemm *g);  /* int8 rows (row_scale) x int8 -> float */
    void (*gemm_f32)(const ek_gemm *g);
    void (*gemm_sparse)(const ek_gemm *g); /* int8 x int8 -> int8, w_zero 0 */
    void (*dw_s8)(const ek_dw *d);
    void (*dw_f32)(const ek_dw *d);
    int (*dw_image)(const ek_dw *d);     /* dw_s8 over a padded image; 0: not one it can do.  NULL: can do none */
    void (*add_s8)(const int8_t *a, const int8_t *b, int8_t *y, size_t n, const ek_add_s8 *p);
    void (*lut_s8)(const int8_t *x, const int8_t *table, int8_t *y, size_t n); /* table[x + 128] */
    void (*max_s8)(int8_t *acc, const int8_t *x, size_t n);    /* acc = max(acc, x) */
    void (*max_f32)(float *acc, const float *x, size_t n);
    void (*sum_s8)(int32_t *acc, const int8_t *x, size_t n);   /* acc += x */
    void (*sum_f32)(float *acc, const float *x, size_t n);
    /* acc += x of `rows` rows of n, `step` elements apart.  NULL: callers take sum_s8 row by row; so do builds with EK_BANDS 0 */
    void (*sum_rows_s8)(int32_t *acc, const int8_t *x, size_t n, size_t rows, size_t step);
    void (*quantize)(const float *x, int8_t *y, size_t n, float scale, int32_t zero);
    void (*dequantize)(const int8_t *x, float *y, size_t n, float scale, int32_t zero);
    void (*unary_f32)(const float *x, float *y, size_t n, unsigned kind, float alpha, float beta);
    void (*binary_f32)(const float *a, const float *b, float *y, size_t n, unsigned kind); /* equal shapes */
    /* y = a b over `rows` rows of n, b one row for all of them.  NULL: ops/binary.c has a loop of its own */
    void (*mul_s8)(const int8_t *a, const int8_t *b, int8_t *y, size_t n, size_t rows, const ek_mul_s8 *p);
    /* Widens n int8 (a multiple of 4) as gemm_s8 likes them: word i of x goes to y[4 i] and y[4 i + 2].
     * Returns their sum.  NULL: the kernels take int8 alone. */
    int32_t (*widen)(const int8_t *x, uint32_t n, uint32_t *y);
    /* one row; NULL: ops/softmax.c and ops/layer_norm.c have loops of their own */
    void (*softmax_f32)(const float *x, float *y, uint32_t n, float beta);
    void (*softmax_s8)(const int8_t *x, int8_t *y, const ek_softmax *p); /* table[0] is at least 2^9 */
    void (*norm_f32)(const float *x, float *y, const ek_norm *p);
    void (*norm_s8)(const int8_t *x, int8_t *y, const ek_norm *p);
    /* Winograd's transforms (ops/winograd.c has portable ones), of at least wino_lanes channels: 6x6 pixels -> v[36][plane];
     * products m[36][plane] -> 4x4 outputs */
    void (*wino_in)(const float *const px[36], float *v, size_t plane, uint32_t channels);
    void (*wino_out)(const float *m, size_t plane, const float *bias, const ek_wino_out *o, float *y, uint32_t channels);
    uint8_t wino_lanes;                  /* 0: none */
    void (*gemm_s16)(const ek_gemm16 *g);
    void (*dw_s16)(const ek_dw16 *d);
    uint8_t isa[24];                     /* EK_ISA_* of each slot, by EK_K_* */
    /* layouts the gemm and depthwise kernels were written for; others are read by the portable ones */
    uint8_t s8_nr, s8_kr, s8_kr_too /* another they read; 0: none */, s8_encoding, s8_xoff, f32_nr, dw_s8_nr, dw_f32_nr;
    uint8_t nm_nr, nm_kr, blocks_nr, blocks_kr; /* sparse weights; 0: only the portable kernel reads them */
    /* rows a tile should have at most (scratch permitting) */
    uint8_t tile_rows;
    uint8_t dw_rows; /* 1: the depthwise kernels take several rows at once, reading their weights once */
    uint8_t dw_edges; /* EK_EDGES_*: the depthwise kernels take whole rows whose taps may lie outside the image */
    uint16_t odd_k;   /* int8 windows of at most so many inputs may have runs that are no multiples of kr */
    uint8_t apart;   /* 1: gemm_s8 takes ek_gemm.heads */
    uint8_t windows; /* 1: gemm_s8 reads windows (see ek_gemm) and rows at any address; 2: gemm_f32 does; 3: both */
} ek_kernels;
enum {
    EK_K_GEMM_S8, EK_K_GEMM_DYN, EK_K_GEMM_F32, EK_K_DW_S8, EK_K_DW_F32, EK_K_ADD_S8, EK_K_LUT_S8, EK_K_MAX_S8,
    EK_K_MAX_F32, EK_K_SUM_S8, EK_K_SUM_F32, EK_K_QUANTIZE, EK_K_DEQUANTIZE, EK_K_UNARY_F32, EK_K_BINARY_F32,
    EK_K_GEMM_SPARSE, EK_K_SOFTMAX_F32, EK_K_SOFTMAX_S8, EK_K_NORM_F32, EK_K_NORM_S8,
    EK_K_GEMM_S16, EK_K_DW_S16, EK_K_MUL_S8, EK_K_COUNT, EK_K_NONE = 255
};
/* any of dw_f32; 3x3 and 5x5 of dw_s8, taps side by side, windows 1 or 2 columns apart, weights without a zero point; 3x3 of
 * the same, channels a multiple of 4 of dw_f32, of 8 of dw_s8, at most one column outside at either end, two inside */
enum { EK_EDGES_F32 = 1, EK_EDGES_S8 = 2, EK_EDGES_F32_9 = 4, EK_EDGES_S8_9 = 8 };
enum { EK_XOFF_ANY = 255 }; /* s8_xoff: the kernel adds whatever the layout asks for */

/* the last place of a row of blocks kr deep */
#define EK_LAST_PLACE(g) (((g)->k - 1) / (g)->kr)

/* A build for one model names the slots its ops use, bits (1 << EK_K_*): the linker drops the other kernels, and
 * ek_open refuses packages that need them.  `edgekit build --format c` writes the number. */
#ifndef EK_SLOTS
#define EK_SLOTS 0xffffffffu
#endif
#ifndef EK_NARROW
#define EK_NARROW 1 /* 0: no weights of 4 or 2 bits, none with scales by group */
#endif
#ifndef EK_W_ZERO
#define EK_W_ZERO 1 /* 0: no weights with a zero point */
#endif
static inline const uint8_t *ek_heads(const ek_gemm *g)
{
#if EK_UNPACK
    return g->heads;
#else
    (void)g;
    return 0;
#endif
}

/* Offset of input k of output j of a block in EK_ENC_PAIRS (kr is 4); even outputs are stored plus 128. */
static inline size_t ek_pair_at(uint32_t nr, uint32_t j, uint32_t k)
{
    return (size_t)(k / 4) * nr * 4 + (k & 1) * nr * 2 + j / 2 * 4 + (k >> 1 & 1) * 2 + (j & 1);
}

#ifndef EK_FOREIGN
#define EK_FOREIGN 1 /* 0: portable kernels read no int8 weights */
#endif
#define EK_USES(SLOT) ((EK_SLOTS >> EK_K_##SLOT & 1u) != 0)
#define EK_SET(k, slot, SLOT, fn, ISA) \
    ((k)->slot = EK_USES(SLOT) ? (fn) : 0, (k)->isa[EK_K_##SLOT] = (uint8_t)(EK_USES(SLOT) ? (ISA) : 0))

void ek_kernels_portable(ek_kernels *k);
/* ek_kernels_<isa>(k) of every folder native/kernels/<isa>: declared in gen/isas.h, called in order of rank */
#endif
