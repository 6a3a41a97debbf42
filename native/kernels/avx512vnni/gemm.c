/* GEMM with AVX-512 VNNI.  Blocks of 16 outputs, 4 inputs deep: one 64-byte load is a step of a block. */
#if defined(__x86_64__)
#include "avx512.h"
#include "kernels.h"

enum { ROWS = 8, BLOCKS = 4 }; /* of a register tile, at most: 8 x 3 or 6 x 4 */
#define EK_OWN __attribute__((noinline)) EK_AVX512
enum { SUMS = 64 }; /* rows whose sums are taken at once where weights have a zero point */

typedef struct tile {
    const int8_t *a[ROWS];
    const uint8_t *w;     /* first block */
    size_t block;         /* bytes between blocks */
    uint32_t k, segment;  /* inputs, and of one run */
    ptrdiff_t gap;        /* between runs */
    uint32_t left;        /* outputs from the first block on, at least 1 */
    uint8_t *y;           /* int8 or float, row stride ldy bytes */
    ptrdiff_t ldy;
    const float *row_scale;
    const int32_t *adj;   /* what a weight zero point adds to each row; NULL: nothing */
} tile;

/* Where the rows of a GEMM start, one after the other. */
typedef struct cursor {
    const int8_t *row, *line;
    uint32_t x, width;
    ptrdiff_t lda, jump;
} cursor;

EK_INLINE cursor cursor_of(const ek_gemm *g, size_t size)
{
    const int8_t *a = (const int8_t *)g->a;
    return (cursor){ a, a, 0, g->width ? g->width : g->m, g->lda * (ptrdiff_t)size, g->line * (ptrdiff_t)size };
}

EK_INLINE const int8_t *next_row(cursor *c)
{
    const int8_t *p = c->row;
    c->row += c->lda;
    if (++c->x == c->width) {
        c->row = c->line += c->jump;
        c->x = 0;
    }
    return p;
}

/* VPDPBUSD wants unsigned activations: a + 128 is a ^ 0x80.  What that adds, 128 * sum(w), is in the bias where
 * the layout asks for xoff 128 and is taken off here (`sum`) where it does not.  Sums start from the bias (`bias`) or 0. */
EK_INLINE EK_AVX512 void tile_acc(const tile *t, __m512i acc[ROWS][BLOCKS], const int sum, const int bias, const unsigned mr,
                                  const unsigned nb)
{
    const __m512i flip = _mm512_set1_epi8((char)0x80), ones = _mm512_set1_epi8(1);
    const uint8_t *w = t->w + 128;
    const size_t block = t->block;
    const int8_t *a[ROWS];
    __m512i ws[BLOCKS];
    EK_UNROLL for (unsigned b = 0; b < nb; b++) {
        __m512i first = bias ? _mm512_loadu_si512(t->w + b * block) : _mm512_setzero_si512();
        ws[b] = _mm512_setzero_si512();
        EK_UNROLL for (unsigned r = 0; r < mr; r++)
            acc[r][b] = first;
    }
    EK_UNROLL for (unsigned r = 0; r < mr; r++) {
        a[r] = t->a[r];
        EK_PIN(a[r]);
    }
    ptrdiff_t at = 0;
    for (uint32_t k = 0; k < t->k; k += t->segment, at += t->gap) {
        uint32_t end = t->k - k < t->segment ? t->k - k : t->segment;
        for (uint32_t i = 0; i < end; i += 4, at += 4, w += 64) {
            __m512i wv[BLOCKS];
            EK_UNROLL for (unsigned b = 0; b < nb; b++) {
                wv[b] = _mm512_loadu_si512(w + b * block);
                if (sum)
                    ws[b] = _mm512_dpbusd_epi32(ws[b], ones, wv[b]);
            }
            EK_UNROLL for (unsigned r = 0; r < mr; r++) {
                __m512i x = _mm512_xor_si512(_mm512_set1_epi32(ek_load_s32(a[r] + at)), flip);
                EK_UNROLL for (unsigned b = 0; b < nb; b++)
                    acc[r][b] = _mm512_dpbusd_epi32(acc[r][b], x, wv[b]);
            }
        }
    }
    if (sum)
        EK_UNROLL for (unsigned r = 0; r < mr; r++)
            EK_UNROLL for (unsigned b = 0; b < nb; b++)
                acc[r][b] = _mm512_sub_epi32(acc[r][b], _mm512_slli_epi32(ws[b], 7));
}

/* sum_k (a + 128) of one row, in parts */
EK_INLINE EK_AVX512 __m512i row_sum(const tile *t, const int8_t *a)
{
    const __m512i flip = _mm512_set1_epi8((char)0x80), ones = _mm512_set1_epi8(1);
    __m512i s = _mm512_setzero_si512();
    for (uint32_t k = 0; k < t->k; k += t->segment, a += (ptrdiff_t)t->segment + t->gap) {
        uint32_t end = t->k - k < t->segment ? t->k - k : t->segment;
        for (uint32_t i = 0; i < end; i += 64) {
            __mmask64 m = end - i < 64 ? ((__mmask64)1 << (end - i)) - 1 : ~(__mmask64)0;
            s = _mm512_dpbusd_epi32(s, _mm512_xor_si512(_mm512_maskz_loadu_epi8(m, a + i), flip), _mm512_maskz_mov_epi8(m, ones));
        }
    }
    return s;
}

/* the sums of four vectors */
EK_INLINE EK_AVX512 __m128i sums4(const __m512i p[4])
{
    __m512i a = _mm512_add_epi32(_mm512_unpacklo_epi32(p[0], p[1]), _mm512_unpackhi_epi32(p[0], p[1]));
    __m512i b = _mm512_add_epi32(_mm512_unpacklo_epi32(p[2], p[3]), _mm512_unpackhi_epi32(p[2], p[3]));
    __m512i s = _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
    __m256i h = _mm256_add_epi32(_mm512_castsi512_si256(s), _mm512_extracti64x4_epi64(s, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));
}

/* adj[r] = -w_zero * sum_k (a + xoff) of m rows, at most SUMS */
static EK_AVX512 void adjust(const ek_gemm *g, const tile *t, cursor c, uint32_t m, int32_t *adj)
{
    uint32_t off = t->k * (uint32_t)(g->xoff - 128), z = 0u - (uint32_t)g->w_zero;
    int one = t->k <= 64 && t->segment == t->k; /* a vector holds a row */
    const __m512i flip = _mm512_set1_epi8((char)0x80);
    __mmask64 mask = t->k < 64 ? ((__mmask64)1 << t->k) - 1 : ~(__mmask64)0;
    const __m512i ones = _mm512_maskz_mov_epi8(mask, _mm512_set1_epi8(1));
    for (uint32_t r = 0; r < m; r += 4) {
        const int8_t *a[4];
        __m512i p[4];
        EK_UNROLL for (uint32_t i = 0; i < 4; i++)
            a[i] = r + i < m ? next_row(&c) : a[0];
        if (one)
            EK_UNROLL for (uint32_t i = 0; i < 4; i++)
                p[i] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, a[i]), flip), ones);
        else
            for (uint32_t i = 0; i < 4; i++)
                p[i] = row_sum(t, a[i]);
        __m128i s = sums4(p);
        s = _mm_mullo_epi32(_mm_add_epi32(s, _mm_set1_epi32((int32_t)off)), _mm_set1_epi32((int32_t)z));
        _mm_storeu_si128((__m128i *)(void *)(adj + r), s);
    }
}

/* four times 16 sums -> 64 int8 in order */
EK_INLINE EK_AVX512 __m512i narrow(const ek_finish512 *f, __m512i a, __m512i b, __m512i c, __m512i d)
{
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_permutexvar_epi32(order, ek_narrow512(f, a, b, c, d));
}

EK_INLINE EK_AVX512 void store32(int8_t *y, __m256i v, uint32_t left)
{
    if (left >= 32) {
        _mm256_storeu_si256((__m256i *)(void *)y, v);
    } else {
        _mm_storeu_si128((__m128i *)(void *)y, _mm256_castsi256_si128(v));
        ek_store16_s8(y + 16, _mm256_extracti128_si256(v, 1), left - 16);
    }
}

/* three or four blocks, the last may be partial */
EK_INLINE EK_AVX512 void store64(int8_t *y, __m512i v, uint32_t left, const unsigned nb)
{
    if (nb == 4 && left >= 64) {
        _mm512_storeu_si512(y, v);
        return;
    }
    _mm256_storeu_si256((__m256i *)(void *)y, _mm512_castsi512_si256(v));
    if (nb == 4)
        store32(y + 32, _mm512_extracti64x4_epi64(v, 1), left - 32);
    else
        ek_store16_s8(y + 32, _mm512_extracti32x4_epi32(v, 2), left - 32);
}

/* the sums of mr rows and nb blocks, rounded and stored */
EK_INLINE EK_AVX512 void finish_s8(const ek_gemm *g, const tile *t, __m512i acc[ROWS][BLOCKS], const unsigned mr, const unsigned nb)
{
    if (t->adj)
        EK_UNROLL for (unsigned r = 0; r < mr; r++)
            EK_UNROLL for (unsigned b = 0; b < nb; b++)
                acc[r][b] = _mm512_add_epi32(acc[r][b], _mm512_set1_epi32(t->adj[r]));
    const ek_finish512 f = ek_finish512_of(g->lo, g->hi, g->zero);
    EK_UNROLL for (unsigned r = 0; r < mr; r++)
        EK_UNROLL for (unsigned b = 0; b < nb; b++)
            acc[r][b] = ek_scaled512(&f, acc[r][b], _mm512_loadu_ps(t->w + b * t->block + 64));
    const unsigned step = nb == 1 && mr >= 4 ? 4 : nb == 2 && mr >= 2 ? 2 : 1; /* rows that fill a vector */
    int8_t *y = (int8_t *)t->y;
    EK_UNROLL for (unsigned r = 0; r < mr; r += step, y += step * t->ldy) {
        if (nb > 2) {
            store64(y, narrow(&f, acc[r][0], acc[r][1], acc[r][2], acc[r][nb - 1]), t->left, nb);
        } else if (nb == 2) {
            unsigned q = r + step - 1;
            __m512i v = narrow(&f, acc[r][0], acc[r][1], acc[q][0], acc[q][1]);
            store32(y, _mm512_castsi512_si256(v), t->left);
            if (step > 1)
                store32(y + t->ldy, _mm512_extracti64x4_epi64(v, 1), t->left);
        } else {
            unsigned p = step > 1 ? 1 : 0;
            __m512i v = narrow(&f, acc[r][0], acc[r + p][0], acc[r + 2 * p][0], acc[r + 3 * p][0]);
            ek_store16_s8(y, _mm512_castsi512_si128(v), t->left);
            if (step > 1) {
                ek_store16_s8(y + t->ldy, _mm512_extracti32x4_epi32(v, 1), t->left);
                ek_store16_s8(y + 2 * t->ldy, _mm512_extracti32x4_epi32(v, 2), t->left);
                ek_store16_s8(y + 3 * t->ldy, _mm512_extracti32x4_epi32(v, 3), t->left);
            }
        }
    }
}

EK_INLINE EK_AVX512 void tile_dyn(const ek_gemm *g, const tile *t, const unsigned mr, const unsigned nb)
{
    __m512i acc[ROWS][BLOCKS];
    tile_acc(t, acc, 1, 0, mr, nb);
    EK_UNROLL for (unsigned r = 0; r < mr; r++) {
        EK_UNROLL for (unsigned b = 0; b < nb; b++) {
            const uint8_t *head = t->w + b * t->block;
            __m512 s = _mm512_mul_ps(_mm512_set1_ps(t->row_scale[r]), _mm512_loadu_ps(head + 64));
            __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(acc[r][b]), s);
            EK_ROUND512(v);
            v = ek_clamp512(_mm512_add_ps(v, _mm512_loadu_ps(head)), g->lo, g->hi);
            ek_store16_f32((float *)(void *)(t->y + (ptrdiff_t)r * t->ldy) + b * 16u, v, t->left - b * 16u);
        }
    }
}

EK_INLINE EK_AVX512 void tile_s8(const ek_gemm *g, const tile *t, const int sum, const unsigned mr, const unsigned nb)
{
    __m512i acc[ROWS][BLOCKS];
    tile_acc(t, acc, sum, 1, mr, nb);
    finish_s8(g, t, acc, mr, nb);
}

/* ROWS neighbouring windows of three columns one pixel of `step` channels apart, one block of outputs: an input is spread
 * once for the three windows that it is part of. */
static EK_OWN void slide(const ek_gemm *g, const tile *t, uint32_t step)
{
    const __m512i flip = _mm512_set1_epi8((char)0x80);
    __m512i acc[ROWS][BLOCKS];
    EK_UNROLL for (unsigned r = 0; r < ROWS; r++)
        acc[r][0] = _mm512_loadu_si512(t->w);
    const uint8_t *w = t->w + 128;
    const int8_t *a = t->a[0];
    for (uint32_t k = 0; k < t->k; k += t->segment, a += t->gap + 2 * (ptrdiff_t)step, w += 32 * step)
        for (uint32_t i = 0; i < step; i += 4, a += 4, w += 64) {
            __m512i wv[3];
            EK_UNROLL for (unsigned j = 0; j < 3; j++)
                wv[j] = _mm512_loadu_si512(w + j * 16 * step);
            EK_UNROLL for (unsigned q = 0; q < ROWS + 2; q++) {
                __m512i x = _mm512_xor_si512(_mm512_set1_epi32(ek_load_s32(a + q * step)), flip);
                EK_UNROLL for (unsigned j = 0; j < 3; j++)
                    if (q >= j && q - j < ROWS)
                        acc[q - j][0] = _mm512_dpbusd_epi32(acc[q - j][0], x, wv[j]);
            }
        }
    finish_s8(g, t, acc, ROWS, 1);
}

/* m rows of such windows; the last ones of a line are taken from its end */
static EK_AVX512 void sliding(const ek_gemm *g, const tile *of, const cursor *c, uint32_t m)
{
    tile t = *of;
    const int8_t *line = c->row;
    for (; m >= c->width; m -= c->width, line += c->jump, t.y += (ptrdiff_t)c->width * t.ldy)
        for (uint32_t x = 0; x < c->width; x += ROWS) {
            tile now = t;
            uint32_t at = c->width - x < ROWS ? c->width - ROWS : x;
            now.a[0] = line + at * c->lda;
            now.y += (ptrdiff_t)at * t.ldy;
            slide(g, &now, (uint32_t)c->lda);
        }
}

enum { S8, S8_SUM, DYN }; /* S8_SUM: xoff 0 */

EK_INLINE EK_AVX512 void one_tile(const ek_gemm *g, const tile *t, const int kind, const unsigned mr, const unsigned nb)
{
    if (kind == DYN)
        tile_dyn(g, t, mr, nb);
    else
        tile_s8(g, t, kind == S8_SUM, mr, nb);
}

/* m rows of nb blocks, `most` (8 or 6), 4, 2, 1 at a time */
EK_INLINE EK_AVX512 void rows(const ek_gemm *g, tile t, cursor c, uint32_t m, const int kind, const unsigned most, const unsigned nb)
{
    while (m) {
        uint32_t done = m >= most ? most : m >= 4 ? 4 : m >= 2 ? 2 : 1;
        for (uint32_t r = 0; r < done; r++)
            t.a[r] = next_row(&c);
        if (done == most)
            one_tile(g, &t, kind, most, nb);
        else if (done == 4)
            one_tile(g, &t, kind, 4, nb);
        else if (done == 2)
            one_tile(g, &t, kind, 2, nb);
        else
            one_tile(g, &t, kind, 1, nb);
        t.y += (ptrdiff_t)done * t.ldy;
        t.row_scale += kind == DYN ? done : 0;
        t.adj += t.adj ? done : 0;
        m -= done;
    }
}

/* each register tile's code once, on its own */
static EK_OWN void rows_6x4(const ek_gemm *g, const tile *t, const cursor *c, uint32_t m) { rows(g, *t, *c, m, S8, 6, 4); }
static EK_OWN void rows_8x3(const ek_gemm *g, const tile *t, const cursor *c, uint32_t m) { rows(g, *t, *c, m, S8, 8, 3); }
static EK_OWN void rows_8x2(const ek_gemm *g, const tile *t, const cursor *c, uint32_t m) { rows(g, *t, *c, m, S8, 8, 2); }
static EK_OWN void rows_8x1(const ek_gemm *g, const tile *t, const cursor *c, uint32_t m) { rows(g, *t, *c, m, S8, 8, 1); }

/* m rows of all blocks; weights outermost: some blocks stay in cache for all rows */
EK_INLINE EK_AVX512 void blocks(const ek_gemm *g, tile t, const cursor *c, uint32_t m, const int kind)
{
    while (t.left) {
        uint32_t count = (t.left + 15) / 16, nb = count;
        if (kind != S8)
            nb = count > 1 ? 2 : 1;
        else if (count > 4)
            nb = count > 6 ? 4 : 3;
        if (kind == S8 && nb == 4)
            rows_6x4(g, &t, c, m);
        else if (kind == S8 && nb == 3)
            rows_8x3(g, &t, c, m);
        else if (kind == S8 && nb == 2)
            rows_8x2(g, &t, c, m);
        else if (kind == S8 && t.segment == 3 * c->lda && c->lda % 4 == 0 && c->width >= ROWS && !c->x && m % c->width == 0 && !t.adj)
            sliding(g, &t, c, m);
        else if (kind == S8)
            rows_8x1(g, &t, c, m);
        else if (nb == 2)
            rows(g, t, *c, m, kind, 8, 2);
        else
            rows(g, t, *c, m, kind, 8, 1);
        t.w += nb * t.block;
        t.y += (size_t)nb * 16 * (kind == DYN ? 4 : 1);
        t.left -= t.left < nb * 16 ? t.left : nb * 16;
    }
}

EK_INLINE EK_AVX512 void gemm(const ek_gemm *g, const int kind)
{
    tile t = { .w = g->w, .block = ek_block_s8(16, 4, g->k), .k = g->k, .segment = g->segment ? g->segment : g->k,
               .y = (uint8_t *)g->y, .ldy = kind == DYN ? g->ldy * 4 : g->ldy, .left = g->n, .row_scale = g->row_scale };
    t.gap = g->segment ? g->gap - (ptrdiff_t)g->segment : 0;
    cursor c = cursor_of(g, 1);
    if (kind == DYN || !g->w_zero) {
        blocks(g, t, &c, g->m, kind);
        return;
    }
    int32_t adj[SUMS];
    t.adj = adj;
    for (uint32_t m = g->m, now; m; m -= now, t.y += (ptrdiff_t)now * t.ldy) {
        now = m < SUMS ? m : SUMS;
        adjust(g, &t, c, now, adj);
        blocks(g, t, &c, now, kind);
        for (uint32_t r = 0; r < now; r++)
            next_row(&c);
    }
}

/* One row, nb blocks.  A single block's inputs are summed in four parts: one would wait for its own last product. */
EK_INLINE EK_AVX512 void blocks_of_row(const ek_gemm *g, const uint8_t *head, int8_t *y, uint32_t left, const unsigned nb)
{
    const __m512i flip = _mm512_set1_epi8((char)0x80);
    const size_t block = ek_block_s8(16, 4, g->k);
    const unsigned parts = nb == 1 ? 4 : nb == 2 ? 2 : 1;
    const int8_t *a = (const int8_t *)g->a, *end = a + g->k;
    const uint8_t *w = head + 128;
    __m512i acc[BLOCKS], more[BLOCKS];
    EK_UNROLL for (unsigned b = 0; b < nb * parts; b++)
        acc[b] = b < nb ? _mm512_loadu_si512(head + b * block) : _mm512_setzero_si512();
    for (; end - a >= 4 * (ptrdiff_t)parts; a += 4 * parts, w += 64 * parts)
        EK_UNROLL for (unsigned p = 0; p < parts; p++) {
            __m512i x = _mm512_xor_si512(_mm512_set1_epi32(ek_load_s32(a + 4 * p)), flip);
            EK_UNROLL for (unsigned b = 0; b < nb; b++)
                acc[p * nb + b] = _mm512_dpbusd_epi32(acc[p * nb + b], x, _mm512_loadu_si512(w + p * 64 + b * block));
        }
    for (; a < end; a += 4, w += 64) {
        __m512i x = _mm512_xor_si512(_mm512_set1_epi32(ek_load_s32(a)), flip);
        EK_UNROLL for (unsigned b = 0; b < nb; b++)
            acc[b] = _mm512_dpbusd_epi32(acc[b], x, _mm512_loadu_si512(w + b * block));
    }
    const ek_finish512 f = ek_finish512_of(g->lo, g->hi, g->zero);
    EK_UNROLL for (unsigned b = 0; b < nb; b++) {
        EK_UNROLL for (unsigned p = 1; p < parts; p++)
            acc[b] = _mm512_add_epi32(acc[b], acc[p * nb + b]);
        more[b] = ek_scaled512(&f, acc[b], _mm512_loadu_ps(head + b * block + 64));
    }
    __m512i v = narrow(&f, more[0], more[1 % nb], more[2 % nb], more[3 % nb]);
    if (nb > 2)
        store64(y, v, left, nb);
    else if (nb == 2)
        store32(y, _mm512_castsi512_si256(v), left);
    else
        ek_store16_s8(y, _mm512_castsi512_si128(v), left);
}

/* m is 1, xoff 128 and w_zero 0: weights are read once, whatever is set up shows */
static EK_OWN void row_s8(const ek_gemm *g)
{
    const size_t block = ek_block_s8(16, 4, g->k);
    const uint8_t *w = g->w;
    int8_t *y = (int8_t *)g->y;
    uint32_t left = g->n;
    for (; left > 48; left = left > 64 ? left - 64 : 0, y += 64, w += 4 * block)
        blocks_of_row(g, w, y, left, 4);
    if (left > 32)
        blocks_of_row(g, w, y, left, 3);
    else if (left > 16)
        blocks_of_row(g, w, y, left, 2);
    else if (left)
        blocks_of_row(g, w, y, left, 1);
}

static EK_AVX512 void gemm_s8(const ek_gemm *g)
{
    if (g->m == 1 && g->xoff && !g->w_zero && !g->segment)
        row_s8(g);
    else if (g->xoff)
        gemm(g, S8);
    else
        gemm(g, S8_SUM);
}

static EK_AVX512 void gemm_dyn(const ek_gemm *g) { gemm(g, DYN); }

typedef struct tile_f32 {
    const float *a[ROWS];
    const float *w;      /* first block */
    size_t block;        /* floats between blocks */
    uint32_t k, segment; /* inputs, and of one run */
    ptrdiff_t gap;       /* between runs */
    uint32_t left;       /* outputs from the first block on, at least 1 */
    float *y;
} tile_f32;

/* y = act(a w + bias), mr rows, nb blocks of 16 outputs and, with `half`, another of at most 8: where a 512-bit vector is
 * two halves to the core, the empty half would cost as much. */
EK_INLINE EK_AVX512 void one_f32(const ek_gemm *g, const tile_f32 *t, const unsigned mr, const unsigned nb, const int half)
{
    __m512 acc[ROWS][BLOCKS];
    __m256 part[ROWS];
    const size_t block = t->block;
    const float *w = t->w + 16, *a[ROWS];
    EK_UNROLL for (unsigned r = 0; r < mr; r++) {
        EK_UNROLL for (unsigned b = 0; b < nb; b++)
            acc[r][b] = _mm512_loadu_ps(t->w + b * block);
        part[r] = half ? _mm256_loadu_ps(t->w + nb * block) : _mm256_setzero_ps();
        a[r] = t->a[r];
        EK_PIN(a[r]);
    }
    ptrdiff_t at = 0;
    for (uint32_t k = 0; k < t->k; k += t->segment, at += t->gap) {
        uint32_t end = t->k - k < t->segment ? t->k - k : t->segment;
        for (uint32_t i = 0; i < end; i++, at++, w += 16) {
            __m512 wv[BLOCKS];
            EK_UNROLL for (unsigned b = 0; b < nb; b++)
                wv[b] = _mm512_loadu_ps(w + b * block);
            __m256 wp = half ? _mm256_loadu_ps(w + nb * block) : _mm256_setzero_ps();
            EK_UNROLL for (unsigned r = 0; r < mr; r++) {
                __m512 x = _mm512_set1_ps(a[r][at]);
                EK_UNROLL for (unsigned b = 0; b < nb; b++)
                    acc[r][b] = _mm512_fmadd_ps(x, wv[b], acc[r][b]);
                if (half) /* alone: a 512-bit load is two to the core */
                    part[r] = _mm256_fmadd_ps(nb ? _mm512_castps512_ps256(x) : _mm256_set1_ps(a[r][at]), wp, part[r]);
            }
        }
    }
    EK_UNROLL for (unsigned r = 0; r < mr; r++) {
        float *y = t->y + (ptrdiff_t)r * g->ldy;
        EK_UNROLL for (unsigned b = 0; b < nb; b++)
            ek_store16_f32(y + b * 16u, ek_clamp512(acc[r][b], g->lo, g->hi), t->left - b * 16u);
        if (half) {
            __m256 v = ek_clamp_half(part[r], g->lo, g->hi);
            _mm256_mask_storeu_ps(y + nb * 16u, (__mmask8)((1u << (t->left - nb * 16u)) - 1), v);
        }
    }
}

/* all rows of nb blocks: 8, 4, 2, 1 at a time */
EK_INLINE EK_AVX512 void rows_f32(const ek_gemm *g, tile_f32 t, const unsigned nb, const int half)
{
    cursor c = cursor_of(g, sizeof(float));
    for (uint32_t m = g->m, done; m; m -= done, t.y += (ptrdiff_t)done * g->ldy) {
        done = m >= 8 ? 8 : m >= 4 ? 4 : m >= 2 ? 2 : 1;
        for (uint32_t r = 0; r < done; r++)
            t.a[r] = (const float *)(const void *)next_row(&c);
        if (done == 8)
            one_f32(g, &t, 8, nb, half);
        else if (done == 4)
            one_f32(g, &t, 4, nb, half);
        else if (done == 2)
            one_f32(g, &t, 2, nb, half);
        else
            one_f32(g, &t, 1, nb, half);
    }
}

static EK_OWN void rows_f32_32(const ek_gemm *g, const tile_f32 *t) { rows_f32(g, *t, 2, 0); }
static EK_OWN void rows_f32_24(const ek_gemm *g, const tile_f32 *t) { rows_f32(g, *t, 1, 1); }
static EK_OWN void rows_f32_16(const ek_gemm *g, const tile_f32 *t) { rows_f32(g, *t, 1, 0); }
static EK_OWN void rows_f32_8(const ek_gemm *g, const tile_f32 *t) { rows_f32(g, *t, 0, 1); }
static EK_OWN void row_f32_64(const ek_gemm *g, const tile_f32 *t) { one_f32(g, t, 1, 4, 0); }

static EK_AVX512 void gemm_f32(const ek_gemm *g)
{
    tile_f32 t = { .a = { (const float *)g->a }, .w = (const float *)(const void *)g->w, .block = 16 * ((size_t)g->k + 1), .k = g->k,
                   .segment = g->segment ? g->segment : g->k, .left = g->n, .y = (float *)g->y };
    t.gap = g->segment ? g->gap - (ptrdiff_t)g->segment : 0;
    while (t.left) {
        uint32_t now = t.left > 24 ? 32 : t.left > 16 ? 24 : t.left > 8 ? 16 : 8;
        if (g->m == 1 && t.left > 48)
            row_f32_64(g, &t), now = 64;
        else if (now == 32)
            rows_f32_32(g, &t);
        else if (now == 24)
            rows_f32_24(g, &t);
        else if (now == 16)
            rows_f32_16(g, &t);
        else
            rows_f32_8(g, &t);
        t.w += now / 16 * t.block;
        t.y += now;
        t.left -= t.left < now ? t.left : now;
    }
}

void ek_kernels_avx512vnni(ek_kernels *k)
{
    EK_SET(k, gemm_s8, GEMM_S8, gemm_s8, EK_ISA_AVX512VNNI);
    EK_SET(k, gemm_dyn, GEMM_DYN, gemm_dyn, EK_ISA_AVX512VNNI);
    EK_SET(k, gemm_f32, GEMM_F32, gemm_f32, EK_ISA_AVX512VNNI);
    k->s8_nr = 16;
    k->s8_kr = 4;
    k->s8_xoff = EK_XOFF_ANY;
    k->f32_nr = 16;
    k->tile_rows = 16;
    k->windows = 3;
    ek_dw_avx512vnni(k);
    ek_elementwise_avx512vnni(k);
    ek_winograd_avx512vnni(k);
    ek_sparse_avx512vnni(k);
}
#else
typedef int ek_no_avx512vnni; /* a translation unit must not be empty */
#endif
