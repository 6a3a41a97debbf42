/* What lstm and gru share: a block of time steps projected by one GEMM, and the scratch they work in. */
#ifndef EK_RNN_H
#define EK_RNN_H
#include "gemm.h"

typedef struct ek_rnn {
    ek_view x, y;            /* (batch, time, k), (batch, time, u) float, or int8 */
    ek_rows wx;              /* (gates * u, k) */
    uint32_t batch, time, k, u, kp, up, gates, elem;
    uint32_t block;          /* time steps projected at once; 0: the scratch does not hold one */
    /* in scratch */
    float *proj;             /* (block, gates * u) */
    float *hp;               /* (gates * u) recurrent projection of one step */
    uint8_t *state;          /* u * 4 bytes: the cell, or what the op likes */
    uint8_t *h;              /* (up) hidden, padded with zeros to the kernel's depth */
    float *ones;             /* (block) scale of each row for gemm_dyn */
    uint8_t *rows;           /* (block, kp) padded input rows, where k is no multiple of the depth */
} ek_rnn;

/* Operand `i` as weights of n outputs and k inputs for float activations, or for int8 ones through gemm_dyn. */
int ek_rnn_weights(const ek_ctx *c, ek_rows *r, uint32_t i, const ek_view *y, uint32_t n, uint32_t k, int integer);
/* Operand 0 and output 0, weights of operand 1, shapes and scratch; `depth` is the recurrent weights' kr. */
int ek_rnn_setup(const ek_ctx *c, ek_rnn *r, uint32_t gates);
int ek_rnn_scratch(const ek_ctx *c, ek_rnn *r, uint32_t depth);
/* An optional operand or result of (batch, u). */
int ek_rnn_state_ok(const ek_rnn *r, const ek_view *v, uint32_t dtype);
/* proj = the projections of `rows` steps from t0 on; sets `ones`, which ek_rnn_recur needs. */
void ek_rnn_project(const ek_rnn *r, uint32_t b, uint32_t t0, uint32_t rows);
/* hp[0 .. n) = the recurrent projection of the vector at `a` by `w`. */
void ek_rnn_recur(const ek_rnn *r, const ek_rows *w, const void *a, float *hp);
#endif
