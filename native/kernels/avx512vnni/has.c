#if defined(__x86_64__)
#include "cpu.h"
#include "isas.h"

/* F, DQ, BW, VL and VNNI, and FMA */
int ek_has_avx512vnni(void)
{
    return ek_x86_saves(0xe6) && ek_x86(7, EK_EBX, 16) && ek_x86(7, EK_EBX, 17) && ek_x86(7, EK_EBX, 30)
           && ek_x86(7, EK_EBX, 31) && ek_x86(7, EK_ECX, 11) && ek_x86(1, EK_ECX, 12);
}
#else
typedef int ek_no_avx512vnni_has; /* a translation unit must not be empty */
#endif
