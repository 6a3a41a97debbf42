/* The portable kernels an op falls back to when a package's layout is not the one the CPU's kernel reads. */
#ifndef EK_PORTABLE_H
#define EK_PORTABLE_H
#include "kernels.h"
void ek_gemm_s16_portable(const ek_gemm16 *g);
void ek_dw_s16_portable(const ek_dw16 *d);
void ek_gemm_s8_portable(const ek_gemm *g);
void ek_gemm_dyn_portable(const ek_gemm *g);
void ek_gemm_f32_portable(const ek_gemm *g);
void ek_gemm_sparse_portable(const ek_gemm *g);
void ek_dw_s8_portable(const ek_dw *d);
void ek_dw_f32_portable(const ek_dw *d);
#endif
