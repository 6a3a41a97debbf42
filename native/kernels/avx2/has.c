#if defined(__x86_64__)
#include "cpu.h"
#include "isas.h"

/* AVX2 and FMA */
int ek_has_avx2(void) { return ek_x86_saves(6) && ek_x86(7, EK_EBX, 5) && ek_x86(1, EK_ECX, 12); }
#else
typedef int ek_no_avx2_has; /* a translation unit must not be empty */
#endif
