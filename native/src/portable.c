/* Portable kernels: complete and the truth.  Every layout, every width; an ISA overlays what it does faster. */
#include "op.h"
#include "portable.h"
#include <string.h>
#include "fmath.h"
#include "qmath.h"

/* sum_k (a + xoff) * w over output j of a packed block */
static int32_t dot_s8(const ek_gemm *g, const int8_t *a, const int8_t *w, uint32_t j, int32_t xoff)
{
    int32_t acc = 0;
    uint32_t k = g->k, nr = g->nr, kr = g->kr;
    if (g->encoding == EK_ENC_PAIRS) {
        for (uint32_t i = 0; i < k; i++)
            acc += (a[i] + xoff) * (int8_t)(w[ek_pair_at(nr, j, i)] ^ (j & 1 ? 0 : -128));
        return acc;
    }
    for (uint32_t k0 = 0; k0 < k; k0 += kr) {
        const int8_t *p = w + (size_t)(k0 / kr) * nr * kr + j * kr;
        uint32_t n = k - k0 < kr ? k - k0 : kr;
        for (uint32_t i = 0; i < n; i++)
            acc += (a[k0 + i] + xoff) * p[i];
    }
    return acc;
}

static int32_t row_sum(const int8_t *a, uint32_t k, int32_t xoff)
{
    int32_t s = 0;
    for (uint32_t i = 0; i < k; i++)
        s += a[i] + xoff;
    return s;
}

static size_t block_bytes_s8(const ek_gemm *g)
{
    return (ek_heads(g) ? 0 : (size_t)g->nr * 8) + (size_t)((g->k + g->kr - 1) / g->kr) * g->kr * g->nr;
}

void ek_gemm_s8_portable(const ek_gemm *g)
{
    for (uint32_t m = 0; m < g->m; m++) {
        const int8_t *a = (const int8_t *)g->a + (ptrdiff_t)m * g->lda;
        int8_t *y = (int8_t *)g->y + (ptrdiff_t)m * g->ldy;
        int32_t adj = EK_W_ZERO && g->w_zero ? -g->w_zero * row_sum(a, g->k, g->xoff) : 0;
        const uint8_t *blk = g->w;
        for (uint32_t n0 = 0; n0 < g->n; n0 += g->nr, blk += block_bytes_s8(g)) {
            const uint8_t *head = ek_heads(g) ? ek_heads(g) + (size_t)n0 * 8 : blk;
            const int32_t *bias = (const int32_t *)(const void *)head;
            const float *scale = (const float *)(const void *)(head + g->nr * 4u);
            const int8_t *w = (const int8_t *)(ek_heads(g) ? blk : blk + g->nr * 8u);
            for (uint32_t j = 0; j < g->nr && n0 + j < g->n; j++) {
                uint32_t acc = (uint32_t)dot_s8(g, a, w, j, g->xoff);
                acc += (uint32_t)bias[j] + (uint32_t)adj;
                y[n0 + j] = ek_requant((int32_t)acc, scale[j], g->lo, g->hi, g->zero);
            }
        }
    }
}

void ek_gemm_dyn_portable(const ek_gemm *g)
{
    for (uint32_t m = 0; m < g->m; m++) {
        const int8_t *a = (const int8_t *)g->a + (ptrdiff_t)m * g->lda;
        float *y = (float *)g->y + (ptrdiff_t)m * g->ldy;
        const uint8_t *blk = g->w;
        for (uint32_t n0 = 0; n0 < g->n; n0 += g->nr, blk += block_bytes_s8(g)) {
            const float *bias = (const float *)(const void *)blk;
            const float *scale = (const float *)(const void *)(blk + g->nr * 4u);
            const int8_t *w = (const int8_t *)(blk + g->nr * 8u);
            for (uint32_t j = 0; j < g->nr && n0 + j < g->n; j++) {
                int32_t acc = dot_s8(g, a, w, j, 0);
                float s = ek_mul_f32(g->row_scale[m], scale[j]);
                float v = ek_mul_f32((float)acc, s) + bias[j];
                y[n0 + j] = ek_clamp_f32(v, g->lo, g->hi);
            }
        }
    }
}

void ek_gemm_f32_portable(const ek_gemm *g)
{
    size_t step = (size_t)g->nr * (1 + (size_t)g->k);
    for (uint32_t m = 0; m < g->m; m++) {
        const float *a = (const float *)g->a + (ptrdiff_t)m * g->lda;
        float *y = (float *)g->y + (ptrdiff_t)m * g->ldy;
        const float *blk = (const float *)(const void *)g->w;
        for (uint32_t n0 = 0; n0 < g->n; n0 += g->nr, blk += step) {
            for (uint32_t j = 0; j < g->nr && n0 + j < g->n; j++) {
                float acc = blk[j];
                const float *w = blk + g->nr + j;
                for (uint32_t k = 0; k < g->k; k++)
                    acc += a[k] * w[(size_t)k * g->nr];
                y[n0 + j] = ek_clamp_f32(acc, g->lo, g->hi);
            }
        }
    }
}

/* sum_k (a + xoff) * w over output j of a block of N:M weights; `p` points behind its scales */
static int32_t dot_nm(const ek_gemm *g, const int8_t *a, const uint8_t *p, uint32_t j)
{
    int32_t acc = 0;
    uint32_t size = (uint32_t)g->nr * g->kr;
    p += j * g->kr;
    for (uint32_t k = 0; k < g->k; k += EK_CHUNK, a += EK_CHUNK)
        for (uint32_t s = 0; s < g->slots; s += g->kr, p += 2 * size)
            for (uint32_t i = 0; i < g->kr; i++)
                acc += (a[p[i] % EK_CHUNK] + g->xoff) * (int8_t)p[size + i];
    return acc;
}

/* the same of listed blocks: `list` are their places, `w` their weights */
static int32_t dot_blocks(const ek_gemm *g, const int8_t *a, const uint16_t *list, const uint8_t *w, uint32_t count, uint32_t j)
{
    int32_t acc = 0;
    for (w += j * g->kr; count; count--, list++, w += (uint32_t)g->nr * g->kr) {
        uint32_t at = ek_min_u32(*list, EK_LAST_PLACE(g)) * g->kr;
        for (uint32_t i = 0; i < g->kr && at + i < g->k; i++)
            acc += (a[at + i] + g->xoff) * (int8_t)w[i];
    }
    return acc;
}

void ek_gemm_sparse_portable(const ek_gemm *g)
{
    uint32_t size = (uint32_t)g->nr * g->kr;
    const uint8_t *blk = g->w;
    for (uint32_t n0 = 0; n0 < g->n; n0 += g->nr) {
        const int32_t *bias = (const int32_t *)(const void *)blk;
        const float *scale = (const float *)(const void *)(blk + g->nr * 4u);
        const uint8_t *w = blk + g->nr * 8u;
        const uint16_t *list = (const uint16_t *)(const void *)(w + 4);
        uint32_t count = g->encoding == EK_ENC_BLOCKS ? *(const uint32_t *)(const void *)w : 0;
        for (uint32_t m = 0; m < g->m; m++) {
            const int8_t *a = (const int8_t *)g->a + (ptrdiff_t)m * g->lda;
            int8_t *y = (int8_t *)g->y + (ptrdiff_t)m * g->ldy + n0;
            for (uint32_t j = 0; j < g->nr && n0 + j < g->n; j++) {
                int32_t acc = g->encoding == EK_ENC_NM ? dot_nm(g, a, w, j)
                                                       : dot_blocks(g, a, list, w + 4 + ek_up(count, 2) * 2, count, j);
                y[j] = ek_requant((int32_t)((uint32_t)acc + (uint32_t)bias[j]), scale[j], g->lo, g->hi, g->zero);
            }
        }
        blk = w + (g->encoding == EK_ENC_NM ? (size_t)ek_up(g->k, EK_CHUNK) / EK_CHUNK * g->slots * g->nr * 2
                                            : 4 + ek_up(count, 2) * 2 + (size_t)count * size);
    }
}

void ek_dw_s8_portable(const ek_dw *d)
{
    uint32_t taps = d->kh * d->kw;
    for (uint32_t p = 0; p < d->count * d->rows; p++) {
        const int8_t *x = (const int8_t *)d->x + (ptrdiff_t)(p / d->count) * d->row_step + (ptrdiff_t)(p % d->count) * d->step;
        int8_t *y = (int8_t *)d->y + (size_t)p * d->channels;
        const uint8_t *blk = d->w;
        for (uint32_t c0 = 0; c0 < d->channels; c0 += d->nr, blk += (size_t)d->nr * (8 + taps)) {
            const int32_t *bias = (const int32_t *)(const void *)blk;
            const float *scale = (const float *)(const void *)(blk + d->nr * 4u);
            const int8_t *w = (const int8_t *)(blk + d->nr * 8u);
            for (uint32_t j = 0; j < d->nr && c0 + j < d->channels; j++) {
                int32_t acc = 0;
                for (uint32_t i = 0; i < d->kh; i++)
                    for (uint32_t l = 0; l < d->kw; l++)
                        acc += x[(ptrdiff_t)i * d->dy + (ptrdiff_t)l * d->dx + c0 + j]
                               * (w[(i * d->kw + l) * d->nr + j] - d->w_zero);
                acc = (int32_t)((uint32_t)acc + (uint32_t)bias[j]);
                y[c0 + j] = ek_requant(acc, scale[j], d->lo, d->hi, d->zero);
            }
        }
    }
}

void ek_dw_f32_portable(const ek_dw *d)
{
    uint32_t taps = d->kh * d->kw;
    for (uint32_t p = 0; p < d->count * d->rows; p++) {
        const float *x = (const float *)d->x + (ptrdiff_t)(p / d->count) * d->row_step + (ptrdiff_t)(p % d->count) * d->step;
        float *y = (float *)d->y + (size_t)p * d->channels;
        const float *blk = (const float *)(const void *)d->w;
        for (uint32_t c0 = 0; c0 < d->channels; c0 += d->nr, blk += (size_t)d->nr * (1 + taps)) {
            for (uint32_t j = 0; j < d->nr && c0 + j < d->channels; j++) {
                float acc = blk[j];
                for (uint32_t i = 0; i < d->kh; i++)
                    for (uint32_t l = 0; l < d->kw; l++)
                        acc += x[(ptrdiff_t)i * d->dy + (ptrdiff_t)l * d->dx + c0 + j]
                               * blk[d->nr + (size_t)(i * d->kw + l) * d->nr + j];
                y[c0 + j] = ek_clamp_f32(acc, d->lo, d->hi);
            }
        }
    }
}

static void add_s8(const int8_t *a, const int8_t *b, int8_t *y, size_t n, const ek_add_s8 *p)
{
    for (size_t i = 0; i < n; i++) {
        int32_t v = ek_asr(a[i] * p->ma + b[i] * p->mb + p->bias, p->shift);
        v = v < p->lo ? p->lo : v > p->hi ? p->hi : v;
        y[i] = (int8_t)(v + p->zero);
    }
}

static void lut_s8(const int8_t *x, const int8_t *table, int8_t *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = table[x[i] + 128];
}

static void max_s8(int8_t *acc, const int8_t *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        acc[i] = x[i] > acc[i] ? x[i] : acc[i];
}

static void max_f32(float *acc, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        acc[i] = x[i] > acc[i] ? x[i] : acc[i];
}

static void sum_s8(int32_t *acc, const int8_t *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        acc[i] += x[i];
}

static void sum_f32(float *acc, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        acc[i] += x[i];
}

static void quantize(const float *x, int8_t *y, size_t n, float scale, int32_t zero)
{
    for (size_t i = 0; i < n; i++)
        y[i] = ek_quantize(x[i], scale, zero);
}

static void dequantize(const int8_t *x, float *y, size_t n, float scale, int32_t zero)
{
    for (size_t i = 0; i < n; i++)
        y[i] = ek_dequantize(x[i], scale, zero);
}

static void unary_f32(const float *x, float *y, size_t n, unsigned kind, float alpha, float beta)
{
    for (size_t i = 0; i < n; i++)
        y[i] = ek_unary_f32(x[i], kind, alpha, beta);
}

static void binary_f32(const float *a, const float *b, float *y, size_t n, unsigned kind)
{
    for (size_t i = 0; i < n; i++)
        y[i] = ek_binary_f32(a[i], b[i], kind);
}

/* output i of a row, rounded once */
static void store16(void *y, uint32_t i, uint32_t size, int64_t acc, float scale, float lo, float hi, int32_t zero)
{
    int32_t q = ek_rint_f32(ek_clamp_f32(ek_mul_f32(ek_s64_f32(acc), scale), lo, hi)) + zero;
    if (size == 1)
        ((int8_t *)y)[i] = (int8_t)q;
    else
        ((int16_t *)y)[i] = (int16_t)q;
}

void ek_gemm_s16_portable(const ek_gemm16 *g)
{
    const uint8_t *blk = g->w;
    uint32_t kp = ek_up(g->k, EK_KR16);
    for (uint32_t n0 = 0; n0 < g->n; n0 += EK_NR16, blk += EK_NR16 * (8 + (size_t)kp)) {
        const int32_t *bias = (const int32_t *)(const void *)blk;
        const float *scale = (const float *)(const void *)(blk + EK_NR16 * 4);
        uint32_t n = ek_min_u32(EK_NR16, g->n - n0);
        for (uint32_t m = 0; m < g->m; m++) {
            const int16_t *a = g->a + (ptrdiff_t)m * g->lda;
            const int8_t *w = (const int8_t *)(blk + EK_NR16 * 8);
            int64_t acc[EK_NR16];
            for (uint32_t j = 0; j < EK_NR16; j++)
                acc[j] = bias[j];
            for (uint32_t k = 0; k < kp;) {
                int32_t sum[EK_NR16] = { 0 };
                for (uint32_t end = ek_min_u32(k + EK_CHUNK16, kp); k < end; k += EK_KR16, w += EK_NR16 * EK_KR16)
                    for (uint32_t j = 0; j < EK_NR16; j++)
                        sum[j] += a[k] * w[j * 2] + a[k + 1] * w[j * 2 + 1];
                for (uint32_t j = 0; j < EK_NR16; j++)
                    acc[j] += sum[j];
            }
            uint8_t *y = (uint8_t *)g->y + ((ptrdiff_t)m * g->ldy + (ptrdiff_t)n0) * (ptrdiff_t)g->size;
            for (uint32_t j = 0; j < n; j++)
                store16(y, j, g->size, acc[j], scale[j], g->lo, g->hi, g->zero);
        }
    }
}

void ek_dw_s16_portable(const ek_dw16 *d)
{
    const uint8_t *blk = d->w;
    for (uint32_t c = 0; c < d->channels; c += EK_NR16, blk += EK_NR16 * (8 + (size_t)d->count)) {
        const int32_t *bias = (const int32_t *)(const void *)blk;
        const float *scale = (const float *)(const void *)(blk + EK_NR16 * 4);
        uint32_t n = ek_min_u32(EK_NR16, d->channels - c);
        for (uint32_t j = 0; j < n; j++) {
            const int8_t *w = (const int8_t *)(blk + EK_NR16 * 8) + j;
            int64_t acc = bias[j];
            for (uint32_t t = 0; t < d->count; t++)
                acc += d->taps[t][c + j] * w[t * EK_NR16];
            store16(d->y, c + j, d->size, acc, scale[j], d->lo, d->hi, d->zero);
        }
    }
}

#define FILL(slot, SLOT, fn) EK_SET(k, slot, SLOT, fn, EK_ISA_PORTABLE)

void ek_kernels_portable(ek_kernels *k)
{
    memset(k, 0, sizeof *k); /* no layout is its own, and what ISAs alone have is not there */
    FILL(gemm_s8, GEMM_S8, EK_FOREIGN ? ek_gemm_s8_portable : 0);
    FILL(gemm_dyn, GEMM_DYN, ek_gemm_dyn_portable);
    FILL(gemm_f32, GEMM_F32, ek_gemm_f32_portable);
    FILL(gemm_sparse, GEMM_SPARSE, ek_gemm_sparse_portable);
    FILL(dw_s8, DW_S8, EK_FOREIGN ? ek_dw_s8_portable : 0);
    FILL(dw_f32, DW_F32, ek_dw_f32_portable);
    FILL(add_s8, ADD_S8, add_s8);
    FILL(lut_s8, LUT_S8, lut_s8);
    FILL(max_s8, MAX_S8, max_s8);
    FILL(max_f32, MAX_F32, max_f32);
    FILL(sum_s8, SUM_S8, sum_s8);
    FILL(sum_f32, SUM_F32, sum_f32);
    FILL(quantize, QUANTIZE, quantize);
    FILL(dequantize, DEQUANTIZE, dequantize);
    FILL(unary_f32, UNARY_F32, unary_f32);
    FILL(binary_f32, BINARY_F32, binary_f32);
    FILL(gemm_s16, GEMM_S16, ek_gemm_s16_portable);
    FILL(dw_s16, DW_S16, ek_dw_s16_portable);
    k->s8_xoff = EK_XOFF_ANY;
    k->tile_rows = 4;
}
