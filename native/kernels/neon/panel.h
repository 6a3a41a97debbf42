/* Rows of a GEMM packed for register tiles: read from memory once, then by every block of outputs.
 *
 * A panel holds 12, 8 or 4 rows in groups of four, four bytes of each row in turn (SDOT and FMLA by lane), or of two, eight of
 * each in turn (SMMLA); groups follow each other.  Packing also gathers the windows of a convolution.  Rows that are left over,
 * and rows too long for a panel, are multiplied one by one. */
#ifndef EK_PANEL_H
#define EK_PANEL_H
#include "neon.h"

/* panels of a block of rows: EK_PANEL_NEAR, which first caches hold, or one tile in EK_PANEL_BYTES */
enum { EK_PANEL_NEAR = 24576, EK_PANEL_BYTES = 49152, EK_PANEL_ROWS = 96, EK_GATHER_BYTES = 4096, EK_ODD_K = EK_GATHER_BYTES / 4 };

/* Where the rows of a GEMM start, one after the other; all in bytes. */
typedef struct ek_cursor {
    const uint8_t *row, *line;
    uint32_t x, width, given, bytes, segment; /* of a row: inputs, those padded to kr; of one of its runs */
    ptrdiff_t lda, jump, gap;          /* between rows, lines, runs */
} ek_cursor;

EK_INLINE ek_cursor ek_cursor_of(const ek_gemm *g, uint32_t size)
{
    const uint8_t *a = (const uint8_t *)g->a;
    uint32_t bytes = (g->k + g->kr - 1u) / g->kr * g->kr * size;
    return (ek_cursor){ a, a, 0, g->width ? g->width : g->m, g->k * size, bytes, g->segment ? g->segment * size : bytes,
                        g->lda * (ptrdiff_t)size, g->line * (ptrdiff_t)size, g->gap * (ptrdiff_t)size };
}

EK_INLINE const uint8_t *ek_next_row(ek_cursor *c)
{
    const uint8_t *p = c->row;
    c->row += c->lda;
    if (++c->x == c->width) {
        c->row = c->line += c->jump;
        c->x = 0;
    }
    return p;
}

EK_INLINE void ek_next_rows(ek_cursor *c, const uint8_t *a[4], const unsigned n)
{
    if (c->x + n < c->width) { /* all of one line, and not its last */
        EK_UNROLL for (unsigned i = 0; i < n; i++)
            a[i] = c->row + (ptrdiff_t)i * c->lda;
        c->row = a[n - 1] + c->lda;
        c->x += n;
    } else {
        EK_UNROLL for (unsigned i = 0; i < n; i++)
            a[i] = ek_next_row(c);
    }
}

/* The runs of a row one after the other.  The last two vectors of a run may overlap: calls of memcpy cost more. */
EK_INLINE void ek_gather(const ek_cursor *c, const uint8_t *row, uint8_t *to)
{
    const uint32_t n = c->segment;
    const ptrdiff_t gap = c->gap;
    uint8_t *const end = to + c->given;
    if (n >= 16)
        for (; to < end; row += gap, to += n) {
            for (uint32_t i = 0; i + 16 < n; i += 16)
                vst1q_u8(to + i, vld1q_u8(row + i));
            vst1q_u8(to + n - 16, vld1q_u8(row + n - 16));
        }
    else if (n >= 8)
        for (; to < end; row += gap, to += n) {
            vst1_u8(to, vld1_u8(row));
            vst1_u8(to + n - 8, vld1_u8(row + n - 8));
        }
    else if (n == 4)
        for (; to < end; row += gap, to += 4)
            memcpy(to, row, 4);
    else
        for (; to < end; row += gap, to += n)
            for (uint32_t i = 0; i < n; i++)
                to[i] = row[i];
}

/* n bytes, 4, 8 or 12 */
EK_INLINE uint8x16_t ek_load_part(const uint8_t *p, uint32_t n)
{
    uint32x4_t v = vdupq_n_u32(0);
    if (n & 8)
        v = vreinterpretq_u32_u8(vcombine_u8(vld1_u8(p), vdup_n_u8(0)));
    if (n == 4)
        v = vld1q_lane_u32((const uint32_t *)(const void *)p, v, 0);
    else if (n == 12)
        v = vld1q_lane_u32((const uint32_t *)(const void *)(p + 8), v, 2);
    return vreinterpretq_u8_u32(v);
}

/* 16 bytes of each of `of` rows; moves `to` on */
EK_INLINE void ek_put_chunk(const uint8x16_t v[4], uint8_t **to, const unsigned of)
{
    uint32x4x4_t four;
    uint64x2x2_t two;
    if (of == 4) {
        EK_UNROLL for (unsigned i = 0; i < 4; i++)
            four.val[i] = vreinterpretq_u32_u8(v[i]);
        vst4q_u32((uint32_t *)(void *)*to, four);
    } else {
        EK_UNROLL for (unsigned i = 0; i < 2; i++)
            two.val[i] = vreinterpretq_u64_u8(v[i]);
        vst2q_u64((uint64_t *)(void *)*to, two);
    }
    *to += 16 * of;
    EK_PIN(*to);
}

/* n bytes of each of `of` rows, a multiple of 4; moves on */
EK_INLINE void ek_pack_run(const uint8_t *a[4], uint8_t **to, const unsigned of, uint32_t n)
{
    uint8x16_t u[4], v[4];
    for (uint32_t i = n / 32; i; i--) {
        EK_UNROLL for (unsigned r = 0; r < of; r++)
            EK_NEXT_PAIR(u[r], v[r], a[r]);
        ek_put_chunk(u, to, of);
        ek_put_chunk(v, to, of);
    }
    if (n & 16) {
        EK_UNROLL for (unsigned r = 0; r < of; r++, a[r - 1] += 16)
            u[r] = vld1q_u8(a[r]);
        ek_put_chunk(u, to, of);
    }
    if (n % 16 == 8) {
        EK_UNROLL for (unsigned r = 0; r < of; r++)
            u[r] = ek_load_part(a[r], 8);
        ek_put_chunk(u, to, of);
    } else if (n % 16) {
        EK_UNROLL for (unsigned r = 0; r < of; r++)
            u[r] = ek_load_part(a[r], n % 16);
        ek_put_chunk(u, to, of);
    }
}

/* the next `of` rows; room: for as many, where runs are no chunks; `in`: bytes of an input */
EK_INLINE void ek_pack_group(ek_cursor *c, uint8_t *to, uint8_t *room, const unsigned of, const uint32_t in)
{
    const uint8_t *a[4];
    uint32_t bytes = c->bytes, segment = c->segment;
    const ptrdiff_t gap = c->gap - (ptrdiff_t)segment;
    ek_next_rows(c, a, of);
    if (segment == bytes) {
        ek_pack_run(a, &to, of, bytes);
    } else if (segment % 16 == 0) {
        for (uint32_t k = 0; k < bytes; k += segment) {
            ek_pack_run(a, &to, of, segment);
            EK_UNROLL for (unsigned r = 0; r < of; r++)
                a[r] += gap;
        }
    } else if (in == 4 && segment >= 16) { /* the last two chunks of a run overlap */
        for (uint32_t k = 0; k < bytes; k += segment) {
            uint8_t *end = to + (segment - 16) * 4;
            ek_pack_run(a, &to, of, segment & ~15u);
            EK_UNROLL for (unsigned r = 0; r < of; r++)
                a[r] += (ptrdiff_t)(segment % 16) - 16;
            to = end;
            ek_pack_run(a, &to, of, 16);
            EK_UNROLL for (unsigned r = 0; r < of; r++)
                a[r] += gap;
        }
    } else {
        EK_UNROLL for (unsigned i = 0; i < of; i++, room += (bytes + 15) & ~15u) {
            ek_gather(c, a[i], room);
            a[i] = room;
        }
        ek_pack_run(a, &to, of, (bytes + 15) & ~15u); /* what follows the inputs meets weights of 0, or none */
    }
}

/* Windows of three runs of 9 bytes, 3x3 of three channels, four rows at a time: as vectors of the panel, each of one run or two. */
enum { EK_RGB = 9 };
EK_INLINE unsigned ek_rgb_place(unsigned v, const unsigned of) { return of == 4 ? 4 * v : v % 4 * 8; }

/* where run i of four rows, `lda` apart, has the bytes of vector v: of two vectors that hold `span` bytes, the first and last 16 */
EK_INLINE uint8x16_t ek_rgb_at(unsigned v, unsigned i, uint8_t lda, uint8_t span, const unsigned of)
{
    static const uint8_t count[16] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
    const uint8x16_t n = vld1q_u8(count);
    const uint8x16_t row = of == 4 ? vshrq_n_u8(n, 2) : vaddq_u8(vshrq_n_u8(n, 3), vdupq_n_u8((uint8_t)(v / 4 * 2)));
    uint8x16_t p = vandq_u8(n, vdupq_n_u8(of == 4 ? 3 : 7));
    p = vaddq_u8(p, vdupq_n_u8((uint8_t)(ek_rgb_place(v, of) - EK_RGB * i)));
    const uint8x16_t in = vcltq_u8(p, vdupq_n_u8(EK_RGB));
    p = vmlaq_u8(p, row, vdupq_n_u8(lda));
    p = vaddq_u8(p, vandq_u8(vcgeq_u8(p, vdupq_n_u8(16)), vdupq_n_u8((uint8_t)(32 - span))));
    return vornq_u8(p, in);
}

/* the next m rows, a multiple of 4 */
EK_INLINE void ek_pack_rgb_of(ek_cursor *c, uint8_t *to, uint32_t m, const unsigned of)
{
    const uint32_t span = 3 * (uint32_t)c->lda + EK_RGB;
    const unsigned vectors = of == 4 ? 7 : 8;
    uint8x16_t at[8][2];
    EK_UNROLL for (unsigned v = 0; v < 8; v++)
        EK_UNROLL for (unsigned i = 0; i < 2; i++)
            at[v][i] = ek_rgb_at(v, ek_rgb_place(v, of) / EK_RGB + i, (uint8_t)c->lda, (uint8_t)span, of);
    for (; m; m -= 4, to += 128) {
        uint8x16x2_t run[3];
        const uint8_t *rows[4], *a;
        ek_next_rows(c, rows, 4);
        a = rows[0];
        EK_UNROLL for (unsigned i = 0; i < 3; i++, a += c->gap) {
            run[i].val[0] = vld1q_u8(a);
            run[i].val[1] = vld1q_u8(a + span - 16);
        }
        EK_UNROLL for (unsigned v = 0; v < vectors; v++) {
            const unsigned first = ek_rgb_place(v, of) / EK_RGB, last = (ek_rgb_place(v, of) + (of == 4 ? 3 : 7)) / EK_RGB;
            uint8x16_t x = vqtbl2q_u8(run[first], at[v][0]);
            if (last > first && last < 3)
                x = vqtbx2q_u8(x, run[last], at[v][1]);
            vst1q_u8(to + 16 * v, x);
        }
    }
}

/* each on its own: GEMMs of one row would pay for saving its registers */
static __attribute__((noinline)) void ek_pack_rgb2(ek_cursor *c, uint8_t *to, uint32_t m) { ek_pack_rgb_of(c, to, m, 2); }
static __attribute__((noinline)) void ek_pack_rgb4(ek_cursor *c, uint8_t *to, uint32_t m) { ek_pack_rgb_of(c, to, m, 4); }

/* sum of the int8 of one row whose first k are inputs */
static inline int32_t ek_row_sum_neon(const ek_cursor *c, const uint8_t *row, uint32_t k)
{
    int32x4_t s = vdupq_n_s32(0);
    int32_t sum = 0;
    for (uint32_t done = 0; done < k; done += c->segment, row += c->gap) {
        const int8_t *a = (const int8_t *)row;
        uint32_t n = k - done < c->segment ? k - done : c->segment, i = 0;
        for (; i + 16 <= n; i += 16)
            s = vpadalq_s16(s, vpaddlq_s8(vld1q_s8(a + i)));
        for (; i < n; i++)
            sum += a[i];
    }
    return sum + vaddvq_s32(s);
}

/* Blocks of int8 weights: where the first one's biases and scales lie, and its weights; bytes to those of the next. */
typedef struct ek_blocks {
    const uint8_t *head, *w;
    size_t next_head, next_w;
} ek_blocks;

/* `block`: bytes of a block whose biases and scales lie before its weights */
EK_INLINE ek_blocks ek_blocks_of(const ek_gemm *g, size_t block)
{
    const uint8_t *apart = ek_heads(g);
    return (ek_blocks){ apart ? apart : g->w, apart ? g->w : g->w + 64, apart ? 64 : block, apart ? block - 64 : block };
}

/* one block of outputs of m rows (a multiple of 4), packed; `head`: of float weights, their whole block */
#define EK_BLOCK_ARGS const ek_gemm *g, const ek_ends *given, const uint8_t *panel, const uint8_t *head, const uint8_t *weights, uint32_t m
typedef void ek_block_fn(EK_BLOCK_ARGS);
/* all outputs of one row */
#define EK_ROW_ARGS const ek_gemm *g, const ek_ends *given, const ek_cursor *c, const uint8_t *a
typedef void ek_row_fn(EK_ROW_ARGS);

/* the sums of the next m rows times the weight zero point */
EK_INLINE void ek_adjust(const ek_gemm *g, ek_cursor c, uint32_t m, int32_t *adj)
{
    for (uint32_t i = 0; i < m; i++)
        adj[i] = (int32_t)((uint32_t)g->w_zero * (uint32_t)ek_row_sum_neon(&c, ek_next_row(&c), g->k));
}

/* A GEMM by panels of groups of `of` rows, `most` (12, 8 or 4) rows of a tile; `in` and `out`: bytes of an input and output;
 * `block`: bytes of a block of weights; `blocks`: NULL where all rows are multiplied one by one. */
EK_INLINE void ek_gemm_panels(const ek_gemm *g, size_t block, ek_block_fn *blocks, ek_row_fn *row, const uint32_t in, const uint32_t out,
                              const unsigned of, const uint32_t most)
{
    uint8_t panel[EK_PANEL_BYTES] __attribute__((aligned(64))), room[EK_GATHER_BYTES] __attribute__((aligned(16)));
    int32_t adj[EK_PANEL_ROWS];
    ek_cursor c = ek_cursor_of(g, in);
    ek_ends e = { .ldy = g->ldy, .row_scale = g->row_scale, .lo = g->lo, .hi = g->hi };
    const uint32_t row_bytes = (c.bytes + 15) & ~15u;
    uint32_t most_now = EK_PANEL_NEAR / row_bytes;
    if (most_now < most)
        most_now = EK_PANEL_BYTES / row_bytes < most ? EK_PANEL_BYTES / row_bytes : most;
    const int rgb = in == 1 && c.segment == EK_RGB && g->k == 3 * EK_RGB && c.width % 4 == 0 && c.lda >= 3 && c.lda <= 6;
    if (!blocks || (c.segment < c.bytes && c.segment % 16 && row_bytes * of > EK_GATHER_BYTES))
        most_now = 0;
    most_now = most_now < EK_PANEL_ROWS ? most_now : EK_PANEL_ROWS;
    most_now -= most_now % (most_now < most ? 4 : most);
    if (in == 1 && out == 1) {
        e.q = ek_requant_neon_of(g->lo, g->hi, g->zero);
        e.adj = g->w_zero ? adj : 0;
    }
    uint8_t *y = (uint8_t *)g->y;
    for (uint32_t left = g->m, m; left; left -= m, y += (ptrdiff_t)m * g->ldy * (ptrdiff_t)out) {
        m = left < most_now ? left & ~3u : most_now;
        const uint32_t one = !m;
        m += one;
        if (e.adj)
            ek_adjust(g, c, m, adj);
        e.y = y;
        e.left = g->n;
        if (one) {
            ek_cursor now = c;
            const uint8_t *a = ek_next_row(&c);
            if (c.segment < c.bytes && c.segment % (g->kr * in)) {
                ek_gather(&c, a, room);
                now.segment = c.bytes;
                a = room;
            }
            row(g, &e, &now, a);
        } else {
            if (rgb)
                (of == 4 ? ek_pack_rgb4 : ek_pack_rgb2)(&c, panel, m);
            for (uint32_t r = 0; !rgb && r < m; r += of)
                ek_pack_group(&c, panel + r * row_bytes, room, of, in);
            ek_blocks o = ek_blocks_of(g, block);
            for (uint32_t n = 0; n < g->n; n += 8, o.head += o.next_head, o.w += o.next_w, e.left -= 8) {
                e.y = y + (size_t)n * out;
                blocks(g, &e, panel, o.head, o.w, m);
            }
        }
        if (e.row_scale)
            e.row_scale += m;
    }
}
#endif
