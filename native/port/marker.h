/* Marks in the instruction stream for bench/qemu/ekcount.c: HINTs that no Arm core gives a meaning,
 * so they are NOPs on silicon and the counted binary is the one that ships.  Elsewhere: nothing. */
#ifndef EK_MARKER_H
#define EK_MARKER_H
#define EK_MARK_BEGIN 96 /* a run begins */
#define EK_MARK_OP 97    /* an op is done */
#define EK_MARK_END 98   /* the run is done */
#define EK_MARK_CLOCK 99 /* the clock is read: makes the counter exact, is not recorded */
#if defined(__aarch64__)
#define EK_MARK(n) __asm__ volatile("hint %0" ::"i"(n) : "memory")
#elif defined(__thumb2__)
#define EK_MARK(n) __asm__ volatile(".inst.w 0xf3af8000 + %c0" ::"i"(n) : "memory")
#else
#define EK_MARK(n) ((void)(n))
#endif
#endif
