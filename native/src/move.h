/* What the data-movement ops share: a strided copy of any rank. */
#ifndef EK_MOVE_H
#define EK_MOVE_H
#include "op.h"

enum { EK_MOVE_RANK = 2 * EK_MAX_RANK };

/* Axes of a copy, outermost first; neighbours that are one run in both places are folded into one. */
typedef struct ek_move {
    uint32_t rank;
    uint32_t dims[EK_MOVE_RANK];
    ptrdiff_t from[EK_MOVE_RANK]; /* bytes to move in the source per index; negative: backwards, 0: repeat */
    ptrdiff_t to[EK_MOVE_RANK];   /* bytes to move in the destination per index */
} ek_move;

/* Adds an inner axis of n indices (n > 0); at most EK_MOVE_RANK axes longer than 1. */
void ek_move_axis(ek_move *m, uint32_t n, ptrdiff_t from, ptrdiff_t to);
/* Copies elements of `elem` (1, 2, 4 or 8) bytes; source and destination may overlap, then the values are any. */
void ek_move_run(const ek_ctx *c, const ek_move *m, const uint8_t *src, uint8_t *dst, uint32_t elem);
/* Bytes of one index of axis i of a tensor: what lies inside it. */
ptrdiff_t ek_axis_bytes(const ek_view *v, uint32_t i);
/* Both present, of one element type that has whole bytes. */
int ek_same_type(const ek_view *x, const ek_view *y);
#endif
