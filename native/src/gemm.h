/* What conv2d, linear and their like share: rows of activations against packed weights. */
#ifndef EK_GEMM_H
#define EK_GEMM_H
#include "op.h"

struct ek_rows;
/* Takes the rows of a tile in place of their GEMM, which it runs into `bytes` of scratch before those of the tile. */
typedef struct ek_after {
    void (*fn)(const struct ek_after *after, const struct ek_rows *r, const ek_gemm *g, uint8_t *room);
    uint32_t bytes;              /* a multiple of 16 */
    int32_t zero;                /* zero point of what the GEMM makes */
} ek_after;

typedef struct ek_rows {
    ek_gemm g;                   /* w, n, k, layout, zero filled; lo, hi, w_zero, a, y, m are the op's */
    void (*fn)(const ek_gemm *g);
    int32_t (*widen)(const int8_t *x, uint32_t n, uint32_t *y); /* NULL: fn reads int8 rows alone */
    uint32_t tile;               /* rows of a tile, or what its op counts */
    uint32_t part, parts;        /* outputs of a tile, whole blocks, and how many such share all outputs */
    uint32_t deep;               /* rows are readable up to k rounded up to this */
    int in_place;
    int dynamic;                 /* float activations on int8 weights: the op must quantize rows and set g.row_scale */
    uint32_t bits;               /* of a weight: 32, 8, or 4 or 2, which ek_rows_run unpacks */
    uint32_t group;              /* inputs that share a scale (EK_ENC_GROUPS), else 0: rows are quantized by group, too */
    uint32_t room;               /* bytes of scratch it needs for that, a multiple of 16; else 0 */
    size_t group_bytes;          /* of one group's blocks */
    const ek_after *after;       /* NULL: outputs go to g->y */
} ek_rows;

/* Packed operand `i` as the weights of `groups` GEMMs of n outputs and k inputs: checks that its chosen variant
 * holds them, picks the kernel that reads it.  `dtype` is the activations': EK_F32 or EK_I8. */
int ek_rows_setup(const ek_ctx *c, ek_rows *r, uint32_t i, uint32_t dtype, const ek_view *y, uint32_t n, uint32_t k,
                  uint32_t groups);
/* One tile.  Packed weights of 4 or 2 bits are unpacked into `room` a block of outputs at a time and used for all rows. */
void ek_rows_run(const ek_rows *r, const ek_gemm *g, uint8_t *room);
/* One tile of weights with scales by group: g->row_scale holds r->tile scales for each group, `sum` r->tile rows of nr.
 * Groups are added in order, each rounded to float32 by itself: the same bits from every kernel. */
void ek_rows_run_groups(const ek_rows *r, const ek_gemm *g, uint8_t *room, float *sum);
/* rows a tile may have, given the scratch one row needs (0: none) beside r->room */
uint32_t ek_tile_rows(const ek_ctx *c, const ek_rows *r, uint32_t row_bytes, uint32_t rows);
#if EK_BANDS
/* Sets tile, part and parts so that threads share `items` of so many rows each evenly, `most` items to a tile: by items, or, where
 * these are few, by outputs.  Returns the number of tiles; tile t has items t / parts * tile on and part t % parts of the outputs. */
uint32_t ek_rows_share(const ek_ctx *c, ek_rows *r, uint32_t items, uint32_t rows, uint32_t most);
/* *g, whose w and y are of all outputs, becomes that of a part */
void ek_rows_part(const ek_rows *r, ek_gemm *g, uint32_t part);
#else
static inline uint32_t ek_rows_share(const ek_ctx *c, ek_rows *r, uint32_t items, uint32_t rows, uint32_t most)
{
    (void)c, (void)rows;
    r->tile = ek_min_u32(most, items);
    return (items - 1) / r->tile + 1;
}
static inline void ek_rows_part(const ek_rows *r, ek_gemm *g, uint32_t part) { (void)r, (void)g, (void)part; }
#endif
static inline uint32_t ek_rows_parts(const ek_rows *r) { return EK_BANDS ? r->parts : 1; }
/* the kernel takes widened rows, and scratch has that many bytes beside r->room */
int ek_takes_pairs(const ek_ctx *c, const ek_rows *r, uint32_t bytes);
/* bytes of a pair of widened rows of k inputs (a multiple of 4): twin of wide_bytes in edgekit/ops/conv2d.py */
static inline uint32_t ek_wide_bytes(uint32_t k) { return 8 + 4 * k; }
/* EK_K_* for the report: EK_K_NONE where the portable kernel reads a foreign layout */
unsigned ek_rows_slot(const ek_ctx *c, const ek_rows *r);
/* Rows [first, first + rows) of `image` (h, w, c as in x) to s, (rows, cols, c): column 0 is input column -left, and what
 * lies outside becomes x's zero point. */
void ek_copy_band(const ek_view *x, const uint8_t *image, int64_t first, uint32_t rows, uint32_t left, uint32_t cols, uint8_t *s);
/* First and one past the last output index whose taps all lie inside. */
void ek_inside(uint32_t size, uint32_t out, uint32_t kernel, uint32_t stride, uint32_t dilation, uint32_t pad,
               uint32_t *first, uint32_t *end);
/* Window geometry of conv and pool, of images up to 2^30 rows and columns: (n, h, w, c) -> (n, oh, ow, any); kernel, stride, dilation are rows, columns; pad is
 * top, left, bottom, right. */
int ek_window_ok(const ek_view *x, const ek_view *y, const uint16_t *stride, const uint16_t *dilation,
                 const uint16_t *pad, const uint16_t *kernel);
/* Both float32, or both quantized int8 with bounds and a weight zero point that this build's kernels take. */
int ek_ends_ok(const ek_view *x, const ek_view *y, float lo, float hi, int32_t w_zero);
#endif
