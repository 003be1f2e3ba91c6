/* A libnvidia-ml.so.1 without a GPU: it answers from the text file that FAKE_NVML_STATE names.
 *
 * The file has a line for each value, `key=value`, and is read again at every call, so whoever
 * writes it changes the machine while somebody watches. Without the variable no driver is there.
 *
 *   init_error=18  driver=…  cuda=13000  delay_ms=…      the machine; errors are NVML's numbers
 *   gpu0.name=…  uuid  total  used  cc  util  temp  power_mw  ecc  ecc_errors  mig  error
 *   gpu0.proc=4242:900            a process and its MiB; may be repeated
 *   gpu0.xid=79                   told once for each such line
 *   gpu0.mig0.name=…              an instance: name, uuid, total, used, proc
 *
 * Sizes are MiB. A file `<device>-<pid>` in the folder FAKE_NVML_STATE.claims, with MiB as text, is
 * memory of that process for as long as the process lives; `<device>` is as in `gpu0`.
 */
#include <dirent.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int status;
enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7, TIMEOUT = 10, NO_LIBRARY = 12, GPU_IS_LOST = 15, VERSION_MISMATCH = 25,
};
enum { GPUS = 8, PARTS = 4, TEXT = 256, CRITICAL_XID = 8, NO_INSTANCE = 0xFFFFFFFF };

typedef struct device { char name[24]; int gpu; int part; } device;

static device gpus[GPUS], parts[GPUS][PARTS];
static int users;
static int told[GPUS];

#define EXPORT __attribute__((visibility("default")))

/* --- the state ------------------------------------------------------------------------------ */

/* Put the nth value of `key` into `out`; 0 when there is none. */
static int value(char out[TEXT], int nth, const char *format, ...) {
    char key[96], line[TEXT + 96];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(key, sizeof key, format, arguments);
    va_end(arguments);
    const char *path = getenv("FAKE_NVML_STATE");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file)
        return 0;
    size_t length = strlen(key);
    int found = 0;
    while (!found && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        if (strncmp(line, key, length) == 0 && line[length] == '=' && nth-- == 0) {
            snprintf(out, TEXT, "%s", line + length + 1);
            found = 1;
        }
    }
    fclose(file);
    return found;
}

static int has(const device *d, const char *field) {
    char text[TEXT];
    return value(text, 0, "%s.%s", d->name, field);
}

static uint64_t number(const device *d, const char *field, uint64_t otherwise) {
    char text[TEXT];
    return value(text, 0, "%s.%s", d->name, field) ? strtoull(text, NULL, 0) : otherwise;
}

static status text_of(const device *d, const char *field, char *out, unsigned size) {
    char text[TEXT];
    if (!value(text, 0, "%s.%s", d->name, field))
        return NOT_SUPPORTED;
    if (strlen(text) >= size)
        return INSUFFICIENT_SIZE;
    strcpy(out, text);
    return SUCCESS;
}

static int machine(const char *key, int otherwise) {
    char text[TEXT];
    return value(text, 0, "%s", key) ? atoi(text) : otherwise;
}

/* --- processes ------------------------------------------------------------------------------ */

typedef struct holder { unsigned pid; uint64_t mib; } holder;

static int lives(unsigned pid) {
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%u/stat", pid);
    FILE *file = fopen(path, "r");
    if (!file)
        return 0;
    const char *end = fgets(line, sizeof line, file) ? strrchr(line, ')') : NULL;
    fclose(file);
    return end && end[1] && end[2] != 'Z' && end[2] != 'X';
}

/* Fill `out` with what claims say of a device; return how many there are. */
static int claims(const device *d, holder *out, int most) {
    const char *state = getenv("FAKE_NVML_STATE");
    char folder[512], path[1024];
    int count = 0;
    snprintf(folder, sizeof folder, "%s.claims", state ? state : "");
    DIR *found = opendir(folder);
    if (!found)
        return 0;
    for (struct dirent *entry; count < most && (entry = readdir(found));) {
        char *dash = strrchr(entry->d_name, '-');
        if (!dash || strncmp(entry->d_name, d->name, dash - entry->d_name)
            || d->name[dash - entry->d_name])
            continue;
        unsigned pid = strtoul(dash + 1, NULL, 10);
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        FILE *file = fopen(path, "r");
        unsigned long long mib = 0;
        if (!file)
            continue;
        if (fscanf(file, "%llu", &mib) == 1 && lives(pid))
            out[count++] = (holder) { pid, mib };
        fclose(file);
    }
    closedir(found);
    return count;
}

static uint64_t used(const device *d) {
    holder found[64];
    uint64_t sum = number(d, "used", 0);
    for (int i = claims(d, found, 64); i--;)
        sum += found[i].mib;
    return sum;
}

/* --- calls ---------------------------------------------------------------------------------- */

static status check(const device *d) {
    if (!users)
        return UNINITIALIZED;
    if (!d)
        return INVALID_ARGUMENT;
    usleep(1000 * machine("delay_ms", 0));
    return (status) number(&gpus[d->gpu], "error", SUCCESS);
}

#define CHECK(d) do { status failed = check(d); if (failed) return failed; } while (0)

EXPORT status nvmlInitWithFlags(unsigned flags) {
    (void) flags;
    status failed = getenv("FAKE_NVML_STATE") ? machine("init_error", SUCCESS) : NO_LIBRARY;
    if (failed)
        return failed;
    for (int g = 0; g < GPUS; g++) {
        gpus[g] = (device) { .gpu = g, .part = -1 };
        snprintf(gpus[g].name, sizeof gpus[g].name, "gpu%d", g);
        for (int p = 0; p < PARTS; p++) {
            parts[g][p] = (device) { .gpu = g, .part = p };
            snprintf(parts[g][p].name, sizeof parts[g][p].name, "gpu%d.mig%d", g, p);
        }
    }
    memset(told, 0, sizeof told);
    users++;
    return SUCCESS;
}

EXPORT status nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

EXPORT status nvmlShutdown(void) {
    if (!users)
        return UNINITIALIZED;
    users--;
    return SUCCESS;
}

EXPORT const char *nvmlErrorString(status code) {
    static char text[40];
    snprintf(text, sizeof text, "error %d of a fake", code);
    return text;
}

EXPORT status nvmlSystemGetDriverVersion(char *out, unsigned size) {
    char text[TEXT];
    if (!users)
        return UNINITIALIZED;
    snprintf(out, size, "%s", value(text, 0, "driver") ? text : "580.65.06");
    return SUCCESS;
}

EXPORT status nvmlSystemGetCudaDriverVersion(int *out) {
    *out = machine("cuda", 13000);
    return users ? SUCCESS : UNINITIALIZED;
}

EXPORT status nvmlDeviceGetCount_v2(unsigned *out) {
    if (!users)
        return UNINITIALIZED;
    for (*out = 0; *out < GPUS && has(&gpus[*out], "name"); ++*out)
        ;
    return SUCCESS;
}

EXPORT status nvmlDeviceGetHandleByIndex_v2(unsigned index, device **out) {
    unsigned count;
    status failed = nvmlDeviceGetCount_v2(&count);
    if (failed || index >= count)
        return failed ? failed : INVALID_ARGUMENT;
    *out = &gpus[index];
    return SUCCESS;
}

EXPORT status nvmlDeviceGetName(device *d, char *out, unsigned size) {
    CHECK(d);
    return text_of(d, "name", out, size);
}

EXPORT status nvmlDeviceGetUUID(device *d, char *out, unsigned size) {
    CHECK(d);
    return text_of(d, "uuid", out, size);
}

typedef struct memory { uint64_t total, free, used; } memory;

EXPORT status nvmlDeviceGetMemoryInfo(device *d, memory *out) {
    CHECK(d);
    if (!has(d, "total"))
        return NOT_SUPPORTED;
    uint64_t total = number(d, "total", 0), taken = used(d);
    *out = (memory) { total << 20, (total > taken ? total - taken : 0) << 20, taken << 20 };
    return SUCCESS;
}

EXPORT status nvmlDeviceGetCudaComputeCapability(device *d, int *major, int *minor) {
    char text[TEXT];
    CHECK(d);
    if (!value(text, 0, "%s.cc", d->name))
        return NOT_SUPPORTED;
    return sscanf(text, "%d.%d", major, minor) == 2 ? SUCCESS : NOT_SUPPORTED;
}

EXPORT status nvmlDeviceGetUtilizationRates(device *d, unsigned out[2]) {
    CHECK(d);
    if (!has(d, "util"))
        return NOT_SUPPORTED;
    out[0] = number(d, "util", 0);
    out[1] = 0;
    return SUCCESS;
}

EXPORT status nvmlDeviceGetTemperature(device *d, unsigned sensor, unsigned *out) {
    CHECK(d);
    (void) sensor;
    *out = number(d, "temp", 0);
    return has(d, "temp") ? SUCCESS : NOT_SUPPORTED;
}

typedef struct temperature { unsigned version, sensor; int degrees; } temperature;

/* A driver of before 2025 does not know this one. */
EXPORT status nvmlDeviceGetTemperatureV(device *d, temperature *out) {
    CHECK(d);
    if (out->version != (sizeof *out | 1 << 24))
        return VERSION_MISMATCH;
    out->degrees = number(d, "temp", 0);
    return has(d, "temp") && !machine("old", 0) ? SUCCESS : NOT_SUPPORTED;
}

EXPORT status nvmlDeviceGetPowerUsage(device *d, unsigned *out) {
    CHECK(d);
    *out = number(d, "power_mw", 0);
    return has(d, "power_mw") ? SUCCESS : NOT_SUPPORTED;
}

EXPORT status nvmlDeviceGetEccMode(device *d, unsigned *now, unsigned *next) {
    CHECK(d);
    *now = *next = number(d, "ecc", 0);
    return has(d, "ecc") ? SUCCESS : NOT_SUPPORTED;
}

EXPORT status nvmlDeviceGetTotalEccErrors(device *d, unsigned kind, unsigned since, uint64_t *out) {
    CHECK(d);
    (void) kind, (void) since;
    *out = number(d, "ecc_errors", 0);
    return has(d, "ecc_errors") ? SUCCESS : NOT_SUPPORTED;
}

EXPORT status nvmlDeviceGetMigMode(device *d, unsigned *now, unsigned *next) {
    CHECK(d);
    *now = *next = number(d, "mig", 0);
    return has(d, "mig") ? SUCCESS : NOT_SUPPORTED;
}

EXPORT status nvmlDeviceGetMaxMigDeviceCount(device *d, unsigned *out) {
    CHECK(d);
    *out = PARTS;
    return SUCCESS;
}

EXPORT status nvmlDeviceGetMigDeviceHandleByIndex(device *d, unsigned index, device **out) {
    CHECK(d);
    if (index >= PARTS || !has(&parts[d->gpu][index], "name"))
        return NOT_FOUND;
    *out = &parts[d->gpu][index];
    return SUCCESS;
}

typedef struct process { unsigned pid; uint64_t bytes; unsigned gpu_instance, compute_instance; } process;

EXPORT status nvmlDeviceGetComputeRunningProcesses_v3(device *d, unsigned *count, process *out) {
    holder found[64];
    char text[TEXT];
    CHECK(d);
    int have = claims(d, found, 64);
    for (int nth = 0; have < 64 && value(text, nth, "%s.proc", d->name); nth++, have++)
        if (sscanf(text, "%u:%llu", &found[have].pid, (unsigned long long *) &found[have].mib) != 2)
            return INVALID_ARGUMENT;
    int room = *count;
    *count = have;
    if (have > room)
        return INSUFFICIENT_SIZE;
    for (int i = 0; i < have; i++)
        out[i] = (process) { found[i].pid, found[i].mib << 20, NO_INSTANCE, NO_INSTANCE };
    return SUCCESS;
}

/* --- events --------------------------------------------------------------------------------- */

typedef struct event { device *device; uint64_t kind, data; unsigned gpu_instance, compute_instance; } event;

EXPORT status nvmlEventSetCreate(uint64_t **out) {
    *out = calloc(1, sizeof **out);
    return users ? SUCCESS : UNINITIALIZED;
}

EXPORT status nvmlEventSetFree(uint64_t *set) {
    free(set);
    return SUCCESS;
}

EXPORT status nvmlDeviceRegisterEvents(device *d, uint64_t kinds, uint64_t *set) {
    CHECK(d);
    if (kinds & CRITICAL_XID)
        *set |= 1ull << d->gpu;
    return SUCCESS;
}

EXPORT status nvmlEventSetWait_v2(uint64_t *set, event *out, unsigned ms) {
    char text[TEXT];
    for (unsigned waited = 0;; waited += 10) {
        for (int g = 0; g < GPUS; g++)
            if (*set >> g & 1 && value(text, told[g], "gpu%d.xid", g)) {
                told[g]++;
                *out = (event) { &gpus[g], CRITICAL_XID, strtoull(text, NULL, 0), NO_INSTANCE, NO_INSTANCE };
                return SUCCESS;
            }
        if (waited >= ms)
            return TIMEOUT;
        usleep(10000);
    }
}
