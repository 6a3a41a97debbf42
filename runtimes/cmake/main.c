/* classify PACKAGE < INPUT > OUTPUT: the bytes of the first input in, those of the first output out. */
#include <stdio.h>
#include <stdlib.h>
#include "edgekit.h"

static int fail(const char *what, ek_status s)
{
    fprintf(stderr, "%s: %s\n", what, ek_strerror(s));
    return 1;
}

int main(int argc, char **argv)
{
    FILE *file = argc == 2 ? fopen(argv[1], "rb") : 0;
    if (!file) {
        fprintf(stderr, "usage: classify PACKAGE < INPUT > OUTPUT\n");
        return 2;
    }
    fseek(file, 0, SEEK_END);
    size_t length = ((size_t)ftell(file) + 63) & ~(size_t)63, bytes[EK_MEM_KINDS];
    void *package = aligned_alloc(64, length);
    rewind(file);
    length = fread(package, 1, length, file);
    fclose(file);

    ek_config c = EK_CONFIG_INIT;
    ek_session *s;
    ek_tensor in, out;
    ek_status e = ek_arena_size(package, length, 1, bytes);
    if (e != EK_OK) return fail("package", e);
    c.package = package;
    c.package_len = length;
    for (int i = 0; i < EK_MEM_KINDS; i++) {
        c.mem[i] = bytes[i] ? aligned_alloc(64, (bytes[i] + 63) & ~(size_t)63) : 0;
        c.mem_len[i] = bytes[i];
    }
    if ((e = ek_open(&s, &c)) != EK_OK) return fail("open", e);
    if ((e = ek_selftest(s)) != EK_OK) return fail("self-test", e);
    ek_input(s, 0, 0, &in);
    if (fread(in.data, 1, in.bytes, stdin) != in.bytes) return fail("input", EK_ERR_VALUE);
    if ((e = ek_run(s, 0)) != EK_OK) return fail("run", e);
    ek_output(s, 0, 0, &out);
    fwrite(out.data, 1, out.bytes, stdout);
    return 0;
}
