/* What the SDOT kernels share. */
#ifndef EK_DOTPROD_H
#define EK_DOTPROD_H
#include "../neon/panel.h"

#define EK_DOT __attribute__((target("arch=armv8.2-a+dotprod")))

void ek_dw_dotprod(ek_kernels *k);
#endif
