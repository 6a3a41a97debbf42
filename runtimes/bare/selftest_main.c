/* Firmware for tests: opens the package in flash, runs its golden vectors, then every sample of
 * in.bin, and writes the outputs to out.bin (semihosting files in the emulator's folder).
 *
 * in.bin is a u32 number of samples, then for each sample a u32 entry and the bytes of all inputs, one
 * after the other.  out.bin holds for each sample a u32 size and the bytes of all outputs.  Without
 * in.bin only the golden vectors are run.  Exit code: 0, 1 (a line on the console says why), 99 (fault). */
#include "edgekit.h"
#include "marker.h"
#include "port.h"

static void say(const char *what, uint32_t value)
{
    ek_port_print(what);
    ek_port_print(" ");
    ek_port_print_u32(value);
    ek_port_print("\n");
}

static int fail(const char *what, ek_status s)
{
    ek_port_print("error: ");
    ek_port_print(what);
    ek_port_print(": ");
    ek_port_print(ek_strerror(s));
    say("; status", s);
    return 1;
}

static void on_op(void *ctx, uint32_t op, uint64_t begin, uint64_t end)
{
    (void)ctx, (void)op, (void)begin, (void)end;
    EK_MARK(EK_MARK_OP);
}

/* The clock is asked for only because trace needs one; instructions are counted from outside. */
static uint64_t no_clock(void *ctx)
{
    (void)ctx;
    return 0;
}

/* Gives every memory kind its place; the fast bank is used where the kind fits it. */
static ek_status open_package(ek_session **s)
{
    ek_config c = EK_CONFIG_INIT;
    size_t bytes[EK_MEM_KINDS];
    ek_range heap = ek_port_heap(), fast = ek_port_fast();
    ek_status e = ek_arena_size(ek_package, ek_package_size, 1, bytes);
    if (e != EK_OK) return e;
    for (unsigned kind = 0; kind < EK_MEM_KINDS; kind++) {
        say("memory", (uint32_t)bytes[kind]);
        size_t size = (bytes[kind] + 15u) & ~(size_t)15u;
        ek_range *from = kind == EK_MEM_FAST && size <= fast.size ? &fast : &heap;
        if (size > from->size) return EK_STATUS(EK_ERR_MEMORY, EK_AT_MEMORY, kind);
        c.mem[kind] = from->base;
        c.mem_len[kind] = bytes[kind];
        from->base += size;
        from->size -= size;
    }
    c.package = ek_package;
    c.package_len = ek_package_size;
    c.trace = on_op;
    c.clock = no_clock;
    return ek_open(s, &c);
}

static int run_sample(ek_session *s, int in, int out)
{
    ek_tensor t;
    const char *name;
    uint32_t entry, inputs, outputs, bytes = 0;
    if (!ek_port_read(in, &entry, sizeof entry)) return fail("in.bin is too short", EK_OK);
    ek_status e = ek_entry(s, entry, &name, &inputs, &outputs);
    if (e != EK_OK) return fail("entry", e);
    for (uint32_t i = 0; i < inputs; i++) {
        e = ek_input(s, entry, i, &t);
        if (e != EK_OK) return fail("input", e);
        if (t.bytes && !ek_port_read(in, t.data, t.bytes)) return fail("in.bin is too short", EK_OK);
    }
    EK_MARK(EK_MARK_BEGIN);
    e = ek_run(s, entry);
    EK_MARK(EK_MARK_END);
    if (e != EK_OK) return fail("run", e);
    for (uint32_t i = 0; i < outputs; i++) {
        e = ek_output(s, entry, i, &t);
        if (e != EK_OK) return fail("output", e);
        bytes += (uint32_t)t.bytes;
    }
    if (!ek_port_write(out, &bytes, sizeof bytes)) return fail("out.bin cannot be written", EK_OK);
    for (uint32_t i = 0; i < outputs; i++) {
        e = ek_output(s, entry, i, &t);
        if (e != EK_OK) return fail("output", e);
        if (t.bytes && !ek_port_write(out, t.data, t.bytes)) return fail("out.bin cannot be written", EK_OK);
    }
    return 0;
}

static int run_file(ek_session *s, int in)
{
    uint32_t samples;
    if (!ek_port_read(in, &samples, sizeof samples)) return fail("in.bin is too short", EK_OK);
    int out = ek_port_open("out.bin", 5);
    if (out < 0) return fail("out.bin cannot be opened", EK_OK);
    for (uint32_t n = 0; n < samples; n++)
        if (run_sample(s, in, out)) return 1;
    ek_port_close(out);
    say("samples", samples);
    return 0;
}

int main(void)
{
    ek_session *s;
    ek_status e = ek_verify(ek_package, ek_package_size, 0);
    if (e != EK_OK) return fail("verify", e);
    e = open_package(&s);
    if (e != EK_OK) return fail("open", e);
    e = ek_selftest(s);
    if (e != EK_OK) return fail("selftest", e);
    ek_port_print("selftest passed\n");
    ek_counts counts;
    e = ek_count(s, &counts);
    for (uint32_t op = 0; e == EK_OK && op < counts.ops; op++) {
        ek_op_info info;
        e = ek_op(s, op, &info);
        if (e != EK_OK) break;
        ek_port_print("op ");
        ek_port_print(info.isa);
        ek_port_print(" ");
        ek_port_print(info.type);
        ek_port_print(" ");
        ek_port_print(info.name);
        ek_port_print("\n");
    }
    if (e != EK_OK) return fail("ops", e);
    e = ek_reset(s);
    if (e != EK_OK) return fail("reset", e);
    int in = ek_port_open("in.bin", 1);
    if (in >= 0 && run_file(s, in)) return 1;
    say("stack", (uint32_t)ek_port_stack_used());
    return 0;
}
