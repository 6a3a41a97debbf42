/* edgekit-agent: the agent as one static program for Linux boards and phones without Python.
 *
 *   edgekit-agent --listen [ADDRESS:]PORT --token-file FILE   TCP; the token is EDGEKIT_TOKEN otherwise
 *   edgekit-agent --serial /dev/ttyX [--baud 115200]          a serial line or pseudo-terminal
 *     --package FILE      a package that is there without upload ("resident")
 *     --threads N         threads a host may ask for
 *     --name NAME  --sysroot FOLDER  --max-upload-mib N (default 256)
 *     --counter FILE      under an emulator: u64 of executed instructions that a plugin keeps in FILE
 *
 * Prints `listening on PORT`.  Under an emulator there is no time: without --counter latencies are
 * unmeasurable. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#include "agent.h"
#include "marker.h"
#include "sensors_posix.h"
#include "wire.h"

#define MAX_BODY 16384
#define QUEUE 32
#define EXTRA_BYTES (4u << 20) /* copies of inputs and one trace of the ops */
#define HANDSHAKE_MS 5000
#define SILENCE_MS 10000 /* after this a waiting host may take the place of one that went away */

typedef struct port {
    ek_agent agent;
    int link, heard, emulated;   /* heard: bytes came since the last look */
    uint64_t max_upload;
    void *package, *mem[EK_MEM_KINDS];
    const volatile uint64_t *counter;
    unsigned sensors;
    ek_posix_sensor sensor[EK_POSIX_SENSORS];
} port;

typedef struct options {
    const char *listen, *serial, *token_file, *package, *name, *sysroot, *counter;
    long baud, threads, max_upload_mib;
} options;

static int fail(const char *what, const char *where)
{
    fprintf(stderr, "edgekit-agent: %s: %s\n", where, errno ? strerror(errno) : what);
    return 1;
}

/* ---- hooks ------------------------------------------------------------------------------------ */

static uint64_t now_ns(void *ctx)
{
    struct timespec t;
    (void)ctx;
    clock_gettime(CLOCK_MONOTONIC_RAW, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t now_instructions(void *ctx)
{
    const port *p = ctx;
    EK_MARK(EK_MARK_CLOCK); /* the counter is exact at marks */
    return *p->counter;
}

static size_t on_rx(void *ctx, uint8_t *buf, size_t cap)
{
    port *p = ctx;
    ssize_t n = cap ? read(p->link, buf, cap) : 0;
    if (n > 0) p->heard = 1;
    return n > 0 ? (size_t)n : 0;
}

static int on_tx(void *ctx, const uint8_t *data, size_t len)
{
    const port *p = ctx;
    while (len) {
        ssize_t n = write(p->link, data, len);
        if (n > 0) {
            data += n;
            len -= (size_t)n;
        } else if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            struct pollfd f = {p->link, POLLOUT, 0};
            if (poll(&f, 1, SILENCE_MS) <= 0) return 1;
        } else {
            return 1;
        }
    }
    return 0;
}

static void *aligned(void **slot, uint64_t bytes)
{
    free(*slot);
    *slot = NULL;
    if (bytes > SIZE_MAX - 64) return NULL;
    *slot = aligned_alloc(64, ((size_t)bytes + 63) & ~(size_t)63);
    return *slot;
}

static void *on_store(void *ctx, uint64_t bytes)
{
    port *p = ctx;
    return bytes <= p->max_upload ? aligned(&p->package, bytes) : NULL;
}

static void *on_memory(void *ctx, unsigned kind, size_t bytes)
{
    port *p = ctx;
    return aligned(&p->mem[kind], bytes);
}

static void on_describe(void *ctx, unsigned i, ek_agent_channel *c)
{
    const port *p = ctx;
    const ek_posix_sensor *s = &p->sensor[i];
    c->channel = (uint16_t)(EK_CHANNEL_FIRST_SENSOR + i);
    c->kind = s->kind;
    c->quality = s->quality;
    c->unit = s->unit;
    c->name = s->name;
    c->site = s->site;
    c->reason = s->reason;
}

static unsigned on_metrics(void *ctx, ek_agent_metric *out, unsigned cap)
{
    const port *p = ctx;
    int64_t peak = p->emulated ? 0 : ek_posix_peak_rss(); /* the emulator's own memory says nothing */
    unsigned n = 0;
    if (cap && peak) {
        ek_agent_metric m = {EK_CHANNEL_PEAK_RSS, EK_QUALITY_MEASURED, EK_UNIT_BYTES, peak};
        out[n++] = m;
    }
    for (unsigned i = 0; i < p->sensors && n < cap; i++) {
        ek_agent_metric m = {(uint16_t)(EK_CHANNEL_FIRST_SENSOR + i), p->sensor[i].quality, p->sensor[i].unit, 0};
        if (!ek_posix_read(&p->sensor[i], &m.value)) out[n++] = m;
    }
    return n;
}

/* ---- start ------------------------------------------------------------------------------------ */

/* qemu-user shows the guest its own files below /proc/self, but not the name of the process. */
static int emulated(void)
{
    char name[32] = "";
    FILE *f = fopen("/proc/self/comm", "r");
    if (f) {
        if (!fgets(name, sizeof name, f)) name[0] = 0;
        fclose(f);
    }
    return !strncmp(name, "qemu-", 5);
}

static void *read_file(const char *path, size_t *len)
{
    struct stat st;
    void *data = NULL;
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    if (!fstat(fileno(f), &st) && st.st_size > 0) {
        *len = (size_t)st.st_size;
        if (aligned(&data, *len) && fread(data, 1, *len, f) != *len) {
            free(data);
            data = NULL;
        }
    }
    int why = errno;
    fclose(f);
    errno = why;
    return data;
}

static const uint8_t *read_token(const options *o, size_t *len)
{
    const char *set = getenv("EDGEKIT_TOKEN");
    uint8_t *token = o->token_file ? read_file(o->token_file, len) : set ? (uint8_t *)strdup(set) : NULL;
    if (!token) return NULL;
    if (!o->token_file) *len = strlen((char *)token);
    while (*len && (token[*len - 1] == '\n' || token[*len - 1] == '\r')) --*len;
    if (*len) return token;
    free(token);
    return NULL;
}

static int parse(int argc, char **argv, options *o)
{
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *name = argv[i], *value = argv[i + 1];
        if (!strcmp(name, "--listen")) o->listen = value;
        else if (!strcmp(name, "--serial")) o->serial = value;
        else if (!strcmp(name, "--baud")) o->baud = atol(value);
        else if (!strcmp(name, "--token-file")) o->token_file = value;
        else if (!strcmp(name, "--package")) o->package = value;
        else if (!strcmp(name, "--threads")) o->threads = atol(value);
        else if (!strcmp(name, "--name")) o->name = value;
        else if (!strcmp(name, "--sysroot")) o->sysroot = value;
        else if (!strcmp(name, "--counter")) o->counter = value;
        else if (!strcmp(name, "--max-upload-mib")) o->max_upload_mib = atol(value);
        else return -1;
    }
    return argc % 2 == 1 && !o->listen != !o->serial && o->threads > 0 && o->max_upload_mib > 0 ? 0 : -1;
}

static int set_clock(port *p, ek_agent_config *c, const options *o)
{
    c->emulated = (uint8_t)(emulated() || o->counter);
    p->emulated = c->emulated;
    c->clock = now_ns;
    c->clock_kind = c->emulated ? EK_CLOCK_NONE : EK_CLOCK_TIME;
    c->clock_hz = 1000000000u;
    if (!o->counter) return 0;
    int file = open(o->counter, O_RDONLY);
    void *at = file < 0 ? MAP_FAILED : mmap(NULL, 4096, PROT_READ, MAP_SHARED, file, 0);
    int why = errno;
    if (file >= 0) close(file);
    errno = why;
    if (at == MAP_FAILED) return fail("cannot be mapped", o->counter);
    p->counter = at;
    c->clock = now_instructions;
    c->clock_kind = EK_CLOCK_INSTRUCTIONS;
    return 0;
}

static int open_serial(const char *path, long baud)
{
    static const struct { long baud; speed_t speed; } speeds[] = {
        {9600, B9600}, {57600, B57600}, {115200, B115200}, {230400, B230400}, {460800, B460800},
        {921600, B921600}, {1000000, B1000000}};
    struct termios t;
    int fd = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK);
    if (fd < 0) return -1;
    for (unsigned i = 0; i < sizeof speeds / sizeof speeds[0]; i++) {
        if (speeds[i].baud != baud || tcgetattr(fd, &t)) continue;
        cfmakeraw(&t);
        t.c_cflag |= CLOCAL | CREAD;
        cfsetspeed(&t, speeds[i].speed);
        if (!tcsetattr(fd, TCSANOW, &t)) return fd;
    }
    close(fd);
    return -1;
}

static int open_listener(const char *where)
{
    char host[128] = "127.0.0.1";
    const char *colon = strrchr(where, ':'), *service = colon ? colon + 1 : where;
    struct addrinfo want = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM}, *found;
    int fd, yes = 1;
    if (colon && (size_t)(colon - where) < sizeof host) {
        memcpy(host, where, (size_t)(colon - where));
        host[colon - where] = 0;
    }
    if (getaddrinfo(host, service, &want, &found)) return -1;
    fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (fd >= 0 && (bind(fd, found->ai_addr, found->ai_addrlen) || listen(fd, 4))) {
        close(fd);
        fd = -1;
    }
    freeaddrinfo(found);
    return fd;
}

/* ---- serving ---------------------------------------------------------------------------------- */

static uint64_t now_ms(void) { return now_ns(NULL) / 1000000u; }

/* Serves one link until it is gone.  `listener` >= 0: another host waits there and gets its turn when
 * this one stays silent or proves nothing. */
static void serve_link(port *p, int listener)
{
    uint64_t start = now_ms(), heard = start;
    for (;;) {
        int state = ek_agent_step(&p->agent);
        if (p->heard) heard = now_ms();
        p->heard = 0;
        if (state == EK_AGENT_DOWN) break;
        if (state == EK_AGENT_BUSY) continue;
        struct pollfd f[2] = {{p->link, POLLIN, 0}, {listener, POLLIN, 0}};
        poll(f, 1, 100);
        if (f[0].revents & (POLLHUP | POLLERR) && !(f[0].revents & POLLIN)) break;
        char peek;
        if (listener >= 0 && f[0].revents & POLLIN && recv(p->link, &peek, 1, MSG_PEEK) == 0) break;
        if (listener < 0) continue;
        if (!ek_agent_ready(&p->agent) && now_ms() - start > HANDSHAKE_MS) break;
        if (now_ms() - heard > SILENCE_MS && poll(&f[1], 1, 0) > 0) break;
    }
    ek_agent_link_lost(&p->agent);
}

static int serve(port *p, const options *o)
{
    if (o->serial) {
        p->link = open_serial(o->serial, o->baud);
        if (p->link < 0) return fail("not a serial line, or no such baud rate", o->serial);
        printf("listening on %s\n", o->serial);
        fflush(stdout);
        serve_link(p, -1);
        return 0;
    }
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof address;
    int yes = 1, listener = open_listener(o->listen);
    if (listener < 0 || getsockname(listener, (struct sockaddr *)&address, &size))
        return fail("cannot listen there", o->listen);
    printf("listening on %u\n", ntohs(address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                                                                    : ((struct sockaddr_in *)&address)->sin_port));
    fflush(stdout);
    for (;;) {
        p->link = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (p->link < 0) continue;
        setsockopt(p->link, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        serve_link(p, listener);
        close(p->link);
    }
}

static int start(port *p, ek_agent_config *c, const options *o)
{
    static uint8_t entropy[32];
    int file = open("/dev/urandom", O_RDONLY);
    if (file < 0 || read(file, entropy, sizeof entropy) != (ssize_t)sizeof entropy)
        return fail("no random bytes", "/dev/urandom");
    close(file);
    c->entropy = entropy;
    c->entropy_len = sizeof entropy;
    c->token = read_token(o, &c->token_len);
    if (o->listen && !c->token) {
        errno = 0;
        return fail("TCP needs a token: --token-file FILE or EDGEKIT_TOKEN", "token");
    }
    c->work_len = EK_AGENT_WORK_BYTES(MAX_BODY, QUEUE);
    c->ram_len = EXTRA_BYTES;
    c->work = aligned_alloc(64, (c->work_len + 63) & ~(size_t)63);
    c->ram = aligned_alloc(64, EXTRA_BYTES);
    if (!c->work || !c->ram) return fail("no memory", "start");
    if (o->package) {
        c->resident = read_file(o->package, &c->resident_len);
        if (!c->resident) return fail("cannot be read", o->package);
    }
    if (set_clock(p, c, o)) return 1;
    p->sensors = ek_posix_sensors(o->sysroot, p->emulated, p->sensor);
    c->channels = p->sensors;
    errno = 0;
    return ek_agent_init(&p->agent, c) == EK_AGENT_OK ? serve(p, o) : fail("the configuration is refused", "start");
}

int main(int argc, char **argv)
{
    static port p;
    options o = {.name = "linux", .sysroot = "", .baud = 115200, .threads = 1, .max_upload_mib = 256};
    if (parse(argc, argv, &o)) {
        fprintf(stderr, "usage: edgekit-agent --listen [ADDRESS:]PORT --token-file FILE | --serial DEVICE\n"
                        "       [--baud N] [--package FILE] [--threads N] [--name NAME] [--sysroot FOLDER]\n"
                        "       [--max-upload-mib N] [--counter FILE]\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    static ek_agent_config c = EK_AGENT_CONFIG_INIT; /* what it points to lives as long as the program */
    c.framing = o.serial ? EK_FRAMING_COBS : EK_FRAMING_LENGTH;
    c.agent_kind = EK_AGENT_KIND_POSIX;
    c.max_body = o.serial ? 1008 : MAX_BODY;
    c.queue_frames = QUEUE;
    c.rx_window = o.serial ? 4096 : 1u << 18;
    c.rx = on_rx;
    c.tx = on_tx;
    c.describe = on_describe;
    c.metrics = on_metrics;
    c.store_begin = on_store;
    c.memory = on_memory;
    c.ctx = &p;
    c.name = o.name;
    c.firmware = "edgekit posix 0.1";
    p.max_upload = (uint64_t)o.max_upload_mib << 20;
    return start(&p, &c, &o);
}
