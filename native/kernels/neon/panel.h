/* Rows of a GEMM packed for register tiles: read from memory once, then by every block of outputs.
 *
 * A panel holds 12, 8 or 4 rows.  Sixteen bytes of each (a chunk) follow each other, by groups of `of` rows: four, then four
 * bytes of each row in turn (SDOT and FMLA by lane), or two, then eight of each in turn (SMMLA).  Packing also gathers the
 * windows of a convolution.  Rows that are left over, and rows too long for a panel, are multiplied one by one. */
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

/* the first n bytes, 4, 8, 12 or 16, of each of `of` rows */
EK_INLINE void ek_pack_chunk(const uint8_t *const a[4], uint8_t *to, const unsigned of, uint32_t n)
{
    uint8x16_t v[4];
    uint32x4x4_t four;
    uint64x2x2_t two;
    EK_UNROLL for (unsigned i = 0; i < of; i++)
        v[i] = n == 16 ? vld1q_u8(a[i]) : ek_load_part(a[i], n);
    if (of == 4) {
        EK_UNROLL for (unsigned i = 0; i < 4; i++)
            four.val[i] = vreinterpretq_u32_u8(v[i]);
        vst4q_u32((uint32_t *)(void *)to, four);
    } else {
        EK_UNROLL for (unsigned i = 0; i < 2; i++)
            two.val[i] = vreinterpretq_u64_u8(v[i]);
        vst2q_u64((uint64_t *)(void *)to, two);
    }
}

/* the next `of` rows to every `stride`-th byte of `to`; room: for as many rows, where runs are no chunks */
EK_INLINE void ek_pack_group(ek_cursor *c, uint8_t *to, size_t stride, uint8_t *room, const unsigned of)
{
    const uint8_t *a[4];
    uint32_t bytes = c->bytes, segment = c->segment;
    ptrdiff_t gap = c->gap - (ptrdiff_t)segment;
    EK_UNROLL for (unsigned i = 0; i < of; i++)
        a[i] = ek_next_row(c);
    if (segment < bytes && segment % 16) {
        EK_UNROLL for (unsigned i = 0; i < of; i++, room += (bytes + 15) & ~15u) {
            ek_gather(c, a[i], room);
            a[i] = room;
        }
        segment = bytes = (bytes + 15) & ~15u; /* what follows the inputs meets weights of 0, or none */
    }
    for (uint32_t k = 0; k < bytes; k += segment) {
        for (uint32_t i = segment / 16; i; i--, to += stride) {
            ek_pack_chunk(a, to, of, 16);
            EK_UNROLL for (unsigned r = 0; r < of; r++)
                a[r] += 16;
        }
        if (segment < bytes)
            EK_UNROLL for (unsigned r = 0; r < of; r++)
                a[r] += gap;
    }
    if (bytes % 16 == 8)
        ek_pack_chunk(a, to, of, 8);
    else if (bytes % 16)
        ek_pack_chunk(a, to, of, bytes % 16);
}

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

/* one block of outputs of m rows (a multiple of 4), packed in panels of `most` rows and what is left */
#define EK_BLOCK_ARGS const ek_gemm *g, const ek_ends *given, const uint8_t *panel, const uint8_t *head, uint32_t m
typedef void ek_block_fn(EK_BLOCK_ARGS);
/* all outputs of one row */
#define EK_ROW_ARGS const ek_gemm *g, const ek_ends *given, const ek_cursor *c, const uint8_t *a
typedef void ek_row_fn(EK_ROW_ARGS);

/* rows of the next panel */
EK_INLINE uint32_t ek_panel_rows(uint32_t m, const uint32_t most) { return m >= most ? most : most > 8 && m >= 8 ? 8 : 4; }

/* the sums of the next m rows times the weight zero point */
EK_INLINE void ek_adjust(const ek_gemm *g, ek_cursor c, uint32_t m, int32_t *adj)
{
    for (uint32_t i = 0; i < m; i++)
        adj[i] = (int32_t)((uint32_t)g->w_zero * (uint32_t)ek_row_sum_neon(&c, ek_next_row(&c), g->k));
}

/* A GEMM by panels of groups of `of` rows, `most` (12, 8 or 4) rows of a tile; `in` and `out`: bytes of an input and output;
 * `block`: bytes of a block of weights. */
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
    if (c.segment < c.bytes && c.segment % 16 && row_bytes * of > EK_GATHER_BYTES)
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
            uint8_t *to = panel;
            for (uint32_t i = m, now; i; i -= now, to += now * row_bytes) {
                now = ek_panel_rows(i, most);
                for (uint32_t r = 0; r < now; r += of)
                    ek_pack_group(&c, to + r * 16, now * 16, room, of);
            }
            const uint8_t *w = g->w;
            for (uint32_t n = 0; n < g->n; n += 8, w += block, e.left -= 8) {
                e.y = y + (size_t)n * out;
                blocks(g, &e, panel, w, m);
            }
        }
        if (e.row_scale)
            e.row_scale += m;
    }
}
#endif
