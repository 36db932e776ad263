/*
 * Fails I/O calls of one process on the files of one store: LD_PRELOAD it, and describe the fault in the environment.
 *
 *   IOFAULT_PATH   part of the path of the files that fail       IOFAULT_CALL   write or fsync
 *   IOFAULT_ERRNO  what the call fails with                       IOFAULT_TIMES  how many calls fail; 0 is all
 *
 * Nothing fails until the file IOFAULT_ARMED exists, so that a test can begin in peace. Each failing call adds one byte to
 * IOFAULT_LOG, so that a test can count them.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int failed;

static int is_ours(int file)
{
    char link[64], path[4096];
    const char *part = getenv("IOFAULT_PATH");
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0 || !part)
        return 0;
    path[length] = 0;
    return strstr(path, part) != NULL;
}

static int must_fail(const char *call, int file)
{
    const char *wanted = getenv("IOFAULT_CALL"), *armed = getenv("IOFAULT_ARMED"), *log = getenv("IOFAULT_LOG");
    int times = atoi(getenv("IOFAULT_TIMES") ? getenv("IOFAULT_TIMES") : "0");
    if (!wanted || strcmp(wanted, call) || !armed || access(armed, F_OK) || !is_ours(file))
        return 0;
    if (times && failed >= times)
        return 0;
    failed++;
    int tally = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (tally >= 0) {
        if (write(tally, ".", 1) < 0)
            abort();
        close(tally);
    }
    errno = atoi(getenv("IOFAULT_ERRNO"));
    return 1;
}

#define REAL(name) ((typeof(&name))dlsym(RTLD_NEXT, #name))

ssize_t pwrite(int file, const void *bytes, size_t count, off_t place)
{
    return must_fail("write", file) ? -1 : REAL(pwrite)(file, bytes, count, place);
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t place)
{
    return must_fail("write", file) ? -1 : REAL(pwrite64)(file, bytes, count, place);
}

int fsync(int file)
{
    return must_fail("fsync", file) ? -1 : REAL(fsync)(file);
}

int fdatasync(int file)
{
    return must_fail("fsync", file) ? -1 : REAL(fdatasync)(file);
}
