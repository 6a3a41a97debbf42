#include "sensors_posix.h"
#include "wire.h"
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int read_text(const char *path, char *to, size_t cap)
{
    FILE *f = fopen(path, "r");
    if (!f) return -1;
    size_t n = fread(to, 1, cap - 1, f);
    fclose(f);
    while (n && (to[n - 1] == '\n' || to[n - 1] == ' ')) n--;
    to[n] = 0;
    return n ? 0 : -1;
}

int ek_posix_read(const ek_posix_sensor *s, int64_t *value)
{
    char text[64], *end;
    if (!s->path[0] || read_text(s->path, text, sizeof text)) return -1;
    long long v = strtoll(text, &end, 10);
    if (end == text) return -1;
    *value = (int64_t)v * s->multiply / s->divide;
    return 0;
}

/* VmHWM, since getrusage's ru_maxrss starts with what the process was before exec. */
int64_t ek_posix_peak_rss(void)
{
    char line[128];
    long long kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    if (!f) return 0;
    while (fgets(line, sizeof line, f))
        if (!strncmp(line, "VmHWM:", 6)) kib = strtoll(line + 6, NULL, 10);
    fclose(f);
    return (int64_t)kib * 1024;
}

typedef struct place {
    const char *folder, *prefix, *file, *label; /* root/folder/prefix<n>/file; label: a file beside it */
    uint8_t kind, unit;
    int64_t multiply, divide;
    const char *how;
} place;

static const place places[] = {
    {"/sys/class/thermal", "thermal_zone", "temp", "type", EK_KIND_TEMPERATURE, EK_UNIT_MILLICELSIUS, 1, 1,
     "thermal zone"},
    {"/sys/devices/system/cpu/cpufreq", "policy", "scaling_cur_freq", "scaling_governor", EK_KIND_FREQUENCY,
     EK_UNIT_KHZ, 1, 1, "cpufreq"},
    {"/sys/class/hwmon", "hwmon", "power1_input", "name", EK_KIND_POWER, EK_UNIT_UW, 1, 1, "hwmon power1_input"},
    {"/sys/class/hwmon", "hwmon", "power1_average", "name", EK_KIND_POWER, EK_UNIT_UW, 1, 1,
     "hwmon power1_average"},
};

/* The first channel of `p` that can be read, in the order of the folder's numbers. */
static int find(const char *root, const place *p, ek_posix_sensor *s)
{
    for (unsigned n = 0; n < 32; n++) {
        char label[224];
        int64_t value;
        memset(s, 0, sizeof *s);
        int len = snprintf(s->path, sizeof s->path, "%s%s/%s%u/%s", root, p->folder, p->prefix, n, p->file);
        if (len < 0 || (size_t)len >= sizeof s->path) return -1;
        s->multiply = p->multiply;
        s->divide = p->divide;
        if (ek_posix_read(s, &value)) continue;
        s->kind = p->kind;
        s->unit = p->unit;
        s->quality = EK_QUALITY_MEASURED;
        snprintf(s->name, sizeof s->name, "%s%u", p->prefix, n);
        snprintf(s->reason, sizeof s->reason, "%s", p->how);
        snprintf(label, sizeof label, "%s%s/%s%u/%s", root, p->folder, p->prefix, n, p->label);
        if (read_text(label, s->site, sizeof s->site)) s->site[0] = 0;
        return 0;
    }
    return -1;
}

unsigned ek_posix_sensors(const char *root, int emulated, ek_posix_sensor *s)
{
    unsigned count = 0, power = 0;
    const char *why = emulated ? "emulated: there is no power to measure"
                               : "no readable hwmon power1_input or power1_average";
    for (unsigned i = 0; !emulated && i < sizeof places / sizeof places[0] && count + 1 < EK_POSIX_SENSORS; i++) {
        if (places[i].kind == EK_KIND_POWER && power) continue;
        if (find(root, &places[i], &s[count])) continue;
        power |= places[i].kind == EK_KIND_POWER;
        count++;
    }
    if (!power) { /* never a guess: say why there is none */
        memset(&s[count], 0, sizeof s[count]);
        s[count].kind = EK_KIND_POWER;
        s[count].unit = EK_UNIT_UW;
        s[count].quality = EK_QUALITY_UNMEASURABLE;
        snprintf(s[count].name, sizeof s[count].name, "power");
        snprintf(s[count].reason, sizeof s[count].reason, "%s", why);
        count++;
    }
    return count;
}
