/* Which ISAs this CPU and this build have, as bits (1 << EK_ISA_*).  Each folder native/kernels/<isa> answers for
 * itself: hosted systems ask the CPU or the kernel, a microcontroller's are fixed when it is compiled. */
#include "oplist.h"

uint32_t ek_cpu(void)
{
    uint32_t bits = 0;
    for (const ek_overlay *o = ek_overlays; o->apply; o++)
        if (o->has())
            bits |= 1u << o->isa;
    return bits;
}
