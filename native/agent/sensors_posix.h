/* What a Linux board tells about itself in sysfs; for main_posix.c. */
#ifndef EK_SENSORS_POSIX_H
#define EK_SENSORS_POSIX_H
#include "agent.h"

#define EK_POSIX_SENSORS 8

typedef struct ek_posix_sensor {
    char path[192];   /* file with one number; "" for a channel that only states a reason */
    char name[32], site[32], reason[96];
    int64_t multiply, divide;
    uint8_t kind, quality, unit;
} ek_posix_sensor;

/* Finds temperature, clock and power below `root` ("" on a real device); their number.  Emulated: only
 * why there is no power, since what lies in /sys belongs to another machine. */
unsigned ek_posix_sensors(const char *root, int emulated, ek_posix_sensor *s);
/* 0: *value is in the channel's unit; -1: the file cannot be read now. */
int ek_posix_read(const ek_posix_sensor *s, int64_t *value);
/* Largest resident memory of this program, bytes; 0: not known. */
int64_t ek_posix_peak_rss(void);

#endif
