/* What the SDOT kernels share. */
#ifndef EK_DOTPROD_H
#define EK_DOTPROD_H
#include "../neon/panel.h"

#define EK_DOT __attribute__((target("arch=armv8.2-a+dotprod")))

void ek_dw_dotprod(ek_kernels *k);
void ek_gemm_s8_dotprod(const ek_gemm *g);
void ek_gemm_dyn_dotprod(const ek_gemm *g);
/* rows against blocks 8 inputs deep */
void ek_row8_s8_dotprod(EK_ROW_ARGS);
void ek_row8_dyn_dotprod(EK_ROW_ARGS);
#endif
