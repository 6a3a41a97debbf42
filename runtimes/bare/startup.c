/* Start-up of a Cortex-M in C: vectors, FPU and Helium, .data and .bss, stack paint, main. */
#include "port.h"

extern uint32_t ek_data_load[], ek_data_start[], ek_data_end[], ek_bss_start[], ek_bss_end[];
extern uint32_t ek_stack_guard[], ek_stack_bottom[], ek_stack_top[];
extern uint8_t ek_heap_start[], ek_heap_end[], ek_fast_start[], ek_fast_end[];
void ek_port_reset(void);

#define PAINT 0x5ca1ab1eu
#define REG(a) (*(volatile uint32_t *)(uintptr_t)(a))
#define CCR 0xe000ed14u
#define CPACR 0xe000ed88u
#define CFSR 0xe000ed28u
#define MPU_CTRL 0xe000ed94u
#define MPU_RBAR 0xe000ed9cu
#define MPU_RASR 0xe000eda0u
#define SYST_CSR 0xe000e010u
#define SYST_RVR 0xe000e014u
#define SYST_CVR 0xe000e018u
#define ICSR 0xe000ed04u
#define PENDSTSET (1u << 26)
#define SYST_MAX 0xffffffu

static volatile uint32_t wraps; /* of SysTick, counted by its interrupt */

/* Makes the processor fault when the stack grows out of its place, whatever lies there. */
static void guard_stack(void)
{
#if __ARM_ARCH >= 8
    __asm__ volatile("msr msplim, %0" ::"r"(ek_stack_bottom));
#elif __ARM_ARCH == 7
    REG(MPU_RBAR) = (uint32_t)(uintptr_t)ek_stack_guard | 0x10u; /* region 0 */
    REG(MPU_RASR) = 1u << 28 | 7u << 1 | 1u;                     /* no access, 2^(7+1) bytes */
    REG(MPU_CTRL) = 5;                                           /* on; elsewhere the default map */
    __asm__ volatile("dsb\n isb" ::: "memory");
#endif
}

/* Not noreturn for the compiler's sake: the processor enters here without a caller. */
__attribute__((used)) void ek_port_reset(void)
{
#if __ARM_ARCH >= 7
    REG(CPACR) |= 0xfu << 20; /* coprocessors 10 and 11: FPU, Helium; ignored where there is none */
#if defined(__ARM_ARCH_8_1M_MAIN__) || (defined(__ARM_FEATURE_MVE) && __ARM_FEATURE_MVE)
    REG(CCR) |= 1u << 19; /* low-overhead loops: without it LE branches are slow, not wrong */
#endif
    __asm__ volatile("dsb\n isb" ::: "memory");
#endif
    volatile uint32_t *to = ek_data_start;
    for (const volatile uint32_t *from = ek_data_load; to < (volatile uint32_t *)ek_data_end;) *to++ = *from++;
    for (to = ek_bss_start; to < (volatile uint32_t *)ek_bss_end;) *to++ = 0;
    uint32_t *sp;
    __asm__ volatile("mov %0, sp" : "=r"(sp));
    for (to = ek_stack_bottom; to < (volatile uint32_t *)(sp - 16);) *to++ = PAINT;
    guard_stack();
    ek_port_exit(main());
}

uint64_t ek_port_stack_used(void)
{
    const volatile uint32_t *p = ek_stack_bottom;
    while (p < (const volatile uint32_t *)ek_stack_top && *p == PAINT) p++;
    return (uint64_t)((uintptr_t)ek_stack_top - (uintptr_t)p);
}

static ek_range between(uint8_t *from, uint8_t *to)
{
    ek_range r = { from, (size_t)(to - from) };
    return r;
}
ek_range ek_port_heap(void) { return between(ek_heap_start, ek_heap_end); }
ek_range ek_port_fast(void) { return between(ek_fast_start, ek_fast_end); }

void ek_port_clock_start(void)
{
    REG(SYST_RVR) = SYST_MAX;
    REG(SYST_CVR) = 0;
    REG(SYST_CSR) = 7; /* processor clock, interrupt, on */
    while (REG(SYST_CVR) == 0) { /* not yet loaded: it would read as a whole period gone */
    }
}

uint64_t ek_port_clock(void *ctx)
{
    uint32_t high, low, pending;
    (void)ctx;
    do { /* a wrap between the reads: once more; one not yet served: counted here */
        high = wraps;
        low = SYST_MAX - REG(SYST_CVR);
        pending = REG(ICSR) & PENDSTSET;
        if (pending) low = SYST_MAX - REG(SYST_CVR);
    } while (high != wraps);
    uint64_t cycles = ((uint64_t)high + (pending ? 1u : 0u)) * (SYST_MAX + 1u) + low;
#ifdef EK_ICOUNT_SHIFT
    /* cycles / EK_CLOCK_HZ seconds at 2^shift ns for each instruction */
    const uint64_t per = (uint64_t)EK_CLOCK_HZ << EK_ICOUNT_SHIFT;
    return cycles / per * 1000000000u + cycles % per * 1000000000u / per;
#else
    return cycles;
#endif
}

static void on_systick(void) { wraps++; }

/* frame: r0-r3, r12, lr, pc, xpsr as the processor stacked them */
__attribute__((used)) void ek_port_fault(const uint32_t *frame);
void ek_port_fault(const uint32_t *frame)
{
    const uintptr_t at = (uintptr_t)frame; /* 32 bytes that could not be written */
    int overflow = at < (uintptr_t)ek_stack_bottom || at > (uintptr_t)ek_stack_top - 32;
#if __ARM_ARCH >= 8
    overflow |= (REG(CFSR) >> 20 & 1u) != 0; /* below MSPLIM */
#endif
    if (overflow) {
        ek_port_print("fault: the stack overflowed\n");
        ek_port_exit(99);
    }
    ek_port_print("fault at pc ");
    ek_port_print_u32(frame[6]);
#if __ARM_ARCH >= 7
    ek_port_print(", cfsr ");
    ek_port_print_u32(REG(CFSR));
#endif
    ek_port_print("\n");
    ek_port_exit(99);
}
__attribute__((naked)) static void on_fault(void)
{
    /* a fresh stack: the fault may be the overflow of this one */
    __asm__ volatile("mrs r0, msp\n ldr r1, =ek_stack_top\n mov sp, r1\n bl ek_port_fault\n .ltorg");
}
__attribute__((weak)) void ek_port_irq(void) {}

#define IRQ4 ek_port_irq, ek_port_irq, ek_port_irq, ek_port_irq
#define IRQ16 IRQ4, IRQ4, IRQ4, IRQ4
typedef void (*ek_vector)(void);
__attribute__((section(".vectors"), used)) static const ek_vector vectors[] = {
    (ek_vector)(uintptr_t)ek_stack_top, ek_port_reset, on_fault, on_fault, on_fault, on_fault, on_fault, on_fault,
    0, 0, 0, on_fault, on_fault, 0, on_fault, on_systick,
#ifndef EK_PORT_NO_IRQS /* 384 bytes; no program of the port enables an interrupt but the system tick */
    IRQ16, IRQ16, IRQ16, IRQ16, IRQ16, IRQ16,
#endif
};
