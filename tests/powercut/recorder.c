/*
 * Records what a process does to the files below POWERCUT_ROOT, in one order for all processes that share POWERCUT_LOG.
 *
 * Preloaded. Each call goes to the kernel first and is recorded behind it, so nothing is recorded that did not happen; a sync
 * is recorded before it begins and after it ended, a rename too, since others may see it in between. One record is one
 * appending write, which the kernel puts behind all others: the place in the file is the order.
 *
 * A record: magic, kind, pid, length of the two names and of the bytes (32 bits each), inode, offset, size (64 bits each);
 * then the names and the bytes. `tests/powercut/recording.py` reads it. What would change a file in a way that is not recorded
 * leaves a record UNKNOWN, which fails the run; the shared memory of SQLite (-shm) is made anew at each start and left out.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPENED = 1, WRITTEN, TRUNCATED, SYNC_BEGINS, SYNC_ENDED, RENAME_BEGINS, RENAMED, UNLINKED, FOLDER_MADE, FOLDER_REMOVED,
       UNKNOWN };

struct head {
    uint32_t magic, kind, pid, name, other, bytes;
    uint64_t inode, offset, size;
};

#define REAL(name) ((typeof(&name))dlsym(RTLD_NEXT, #name))

static int log_file = -1;
static const char *root;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("POWERCUT_LOG");
    root = getenv("POWERCUT_ROOT");
    if (!path || !root)
        return;
    int file = REAL(open)(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    log_file = REAL(fcntl)(file, F_DUPFD_CLOEXEC, 500); /* out of the way of programs that close what they do not know */
    REAL(close)(file);
}

static void record(int kind, const char *name, const char *other, uint64_t inode, uint64_t offset, uint64_t size,
                   const struct iovec *bytes, int parts)
{
    int before = errno;
    struct iovec all[IOV_MAX];
    struct head head = {0x43525750, kind, getpid(), strlen(name), strlen(other), 0, inode, offset, size};
    size_t left = bytes ? size : 0, total;
    int count = 3;
    for (int part = 0; part < parts && left; part++, count++) {
        all[count].iov_base = bytes[part].iov_base;
        all[count].iov_len = bytes[part].iov_len < left ? bytes[part].iov_len : left;
        left -= all[count].iov_len;
        head.bytes += all[count].iov_len;
    }
    all[0] = (struct iovec){&head, sizeof head};
    all[1] = (struct iovec){(void *)name, head.name};
    all[2] = (struct iovec){(void *)other, head.other};
    total = sizeof head + head.name + head.other + head.bytes;
    if (REAL(writev)(log_file, all, count) != (ssize_t)total)
        abort(); /* a record that is cut off would make all that follow unreadable */
    errno = before;
}

static int is_ours(const char *path)
{
    size_t length = root ? strlen(root) : 0;
    if (log_file < 0 || strncmp(path, root, length) || (path[length] && path[length] != '/'))
        return 0;
    size_t end = strlen(path);
    return end < 4 || strcmp(path + end - 4, "-shm");
}

/* The path of an open file below the root; 0 for every other. */
static int ours(int file, char *path)
{
    char link[64];
    struct stat status;
    if (log_file < 0 || file == log_file || fstat(file, &status) || !(S_ISREG(status.st_mode) || S_ISDIR(status.st_mode)))
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = 0;
    return is_ours(path);
}

/* The absolute path that a call means; 0 where it is not below the root. */
static int named(int folder, const char *path, char *found)
{
    if (log_file < 0 || !path)
        return 0;
    if (path[0] == '/')
        snprintf(found, PATH_MAX, "%s", path);
    else {
        char link[64];
        if (folder == AT_FDCWD)
            snprintf(link, sizeof link, "/proc/self/cwd");
        else
            snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t length = readlink(link, found, PATH_MAX - 1);
        snprintf(found + (length < 0 ? 0 : length), PATH_MAX - (length < 0 ? 0 : length), "/%s", path);
    }
    return is_ours(found);
}

static uint64_t inode_at(const char *path)
{
    struct stat status;
    return lstat(path, &status) ? 0 : status.st_ino;
}

static uint64_t inode_of(int file)
{
    struct stat status;
    return fstat(file, &status) ? 0 : status.st_ino;
}

static void unknown(int file, const char *call)
{
    char path[PATH_MAX];
    if (ours(file, path))
        record(UNKNOWN, path, call, inode_of(file), 0, 0, NULL, 0);
}

/* --- opening ---------------------------------------------------------------------------------------------------- */

/* `offset` says whether the file was there before, `size` whether it was emptied. */
static int opened(int file, const char *path, int flags, int existed)
{
    if (file >= 0 && ((flags & O_CREAT && !existed) || (flags & O_TRUNC && flags & (O_WRONLY | O_RDWR))))
        record(OPENED, path, "", inode_of(file), existed, (flags & O_TRUNC) != 0, NULL, 0);
    return file;
}

#define OPEN(folder, path, flags, call)                            \
    va_list rest;                                                  \
    va_start(rest, flags);                                         \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
    va_end(rest);                                                  \
    char found[PATH_MAX];                                          \
    int is_named = named(folder, path, found);                     \
    int existed = is_named && inode_at(found) != 0;                \
    int file = call;                                               \
    return is_named ? opened(file, found, flags, existed) : file;

int open(const char *path, int flags, ...) { OPEN(AT_FDCWD, path, flags, REAL(open)(path, flags, mode)) }
int open64(const char *path, int flags, ...) { OPEN(AT_FDCWD, path, flags, REAL(open64)(path, flags, mode)) }
int openat(int folder, const char *path, int flags, ...) { OPEN(folder, path, flags, REAL(openat)(folder, path, flags, mode)) }
int openat64(int folder, const char *path, int flags, ...) { OPEN(folder, path, flags, REAL(openat64)(folder, path, flags, mode)) }
int creat(const char *path, mode_t mode) { return open(path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return open64(path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

/* --- writing ---------------------------------------------------------------------------------------------------- */

static ssize_t written(int file, const struct iovec *bytes, int parts, off_t place, ssize_t count)
{
    char path[PATH_MAX];
    if (count > 0 && ours(file, path)) {
        if (place < 0)
            place = lseek(file, 0, SEEK_CUR) - count;
        record(WRITTEN, path, "", inode_of(file), place, count, bytes, parts);
    }
    return count;
}

#define ONE(bytes, count) (&(struct iovec){(void *)bytes, count}), 1

ssize_t write(int file, const void *bytes, size_t count)
{
    return written(file, ONE(bytes, count), -1, REAL(write)(file, bytes, count));
}

ssize_t pwrite(int file, const void *bytes, size_t count, off_t place)
{
    return written(file, ONE(bytes, count), place, REAL(pwrite)(file, bytes, count, place));
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t place)
{
    return written(file, ONE(bytes, count), place, REAL(pwrite64)(file, bytes, count, place));
}

ssize_t writev(int file, const struct iovec *bytes, int parts)
{
    return written(file, bytes, parts, -1, REAL(writev)(file, bytes, parts));
}

ssize_t pwritev(int file, const struct iovec *bytes, int parts, off_t place)
{
    return written(file, bytes, parts, place, REAL(pwritev)(file, bytes, parts, place));
}

ssize_t pwritev64(int file, const struct iovec *bytes, int parts, off64_t place)
{
    return written(file, bytes, parts, place, REAL(pwritev64)(file, bytes, parts, place));
}

static int truncated(int file, off_t size, int failed)
{
    char path[PATH_MAX];
    if (!failed && ours(file, path))
        record(TRUNCATED, path, "", inode_of(file), 0, size, NULL, 0);
    return failed;
}

int ftruncate(int file, off_t size) { return truncated(file, size, REAL(ftruncate)(file, size)); }
int ftruncate64(int file, off64_t size) { return truncated(file, size, REAL(ftruncate64)(file, size)); }

static int truncated_at(const char *name, off_t size, int failed)
{
    char path[PATH_MAX];
    if (!failed && named(AT_FDCWD, name, path))
        record(TRUNCATED, path, "", inode_at(path), 0, size, NULL, 0);
    return failed;
}

int truncate(const char *path, off_t size) { return truncated_at(path, size, REAL(truncate)(path, size)); }
int truncate64(const char *path, off64_t size) { return truncated_at(path, size, REAL(truncate64)(path, size)); }

/* Room that is set aside reads as zeros; it makes the file longer and changes nothing that is there. */
static int allocated(int file, off_t end, int failed)
{
    struct stat status;
    if (!failed && !fstat(file, &status) && status.st_size >= end)
        truncated(file, status.st_size, 0);
    return failed;
}

int posix_fallocate(int file, off_t place, off_t size) { return allocated(file, place + size, REAL(posix_fallocate)(file, place, size)); }
int posix_fallocate64(int file, off64_t place, off64_t size) { return allocated(file, place + size, REAL(posix_fallocate64)(file, place, size)); }

int fallocate(int file, int mode, off_t place, off_t size)
{
    unknown(file, "fallocate");
    return REAL(fallocate)(file, mode, place, size);
}

int fallocate64(int file, int mode, off64_t place, off64_t size)
{
    unknown(file, "fallocate64");
    return REAL(fallocate64)(file, mode, place, size);
}

ssize_t sendfile(int to, int from, off_t *place, size_t count)
{
    unknown(to, "sendfile");
    return REAL(sendfile)(to, from, place, count);
}

ssize_t sendfile64(int to, int from, off64_t *place, size_t count)
{
    unknown(to, "sendfile64");
    return REAL(sendfile64)(to, from, place, count);
}

ssize_t copy_file_range(int from, off64_t *place, int to, off64_t *where, size_t count, unsigned int flags)
{
    unknown(to, "copy_file_range");
    return REAL(copy_file_range)(from, place, to, where, count, flags);
}

void *mmap(void *at, size_t size, int protection, int flags, int file, off_t place)
{
    if (file >= 0 && protection & PROT_WRITE && flags & MAP_SHARED)
        unknown(file, "mmap");
    return REAL(mmap)(at, size, protection, flags, file, place);
}

void *mmap64(void *at, size_t size, int protection, int flags, int file, off64_t place)
{
    if (file >= 0 && protection & PROT_WRITE && flags & MAP_SHARED)
        unknown(file, "mmap64");
    return REAL(mmap64)(at, size, protection, flags, file, place);
}

/* --- syncing ---------------------------------------------------------------------------------------------------- */

static int synced(int file, int (*sync)(int))
{
    char path[PATH_MAX];
    int is_ours = ours(file, path);
    uint64_t inode = inode_of(file);
    if (is_ours)
        record(SYNC_BEGINS, path, "", inode, 0, 0, NULL, 0);
    int failed = sync(file);
    if (is_ours && !failed)
        record(SYNC_ENDED, path, "", inode, 0, 0, NULL, 0);
    return failed;
}

int fsync(int file) { return synced(file, REAL(fsync)); }
int fdatasync(int file) { return synced(file, REAL(fdatasync)); }

/* --- names ------------------------------------------------------------------------------------------------------ */

#define RENAME(from_folder, from, to_folder, to, call)                                  \
    char old[PATH_MAX], new[PATH_MAX];                                                  \
    int is_from = named(from_folder, from, old), is_to = named(to_folder, to, new);     \
    if (!is_from && !is_to)                                                             \
        return call;                                                                    \
    uint64_t inode = inode_at(old);                                                     \
    record(is_from && is_to ? RENAME_BEGINS : UNKNOWN, old, new, inode, 0, 0, NULL, 0); \
    int failed = call;                                                                  \
    if (!failed && is_from && is_to)                                                    \
        record(RENAMED, old, new, inode, 0, 0, NULL, 0);                                \
    return failed;

int rename(const char *from, const char *to) { RENAME(AT_FDCWD, from, AT_FDCWD, to, REAL(rename)(from, to)) }
int renameat(int folder, const char *from, int other, const char *to) { RENAME(folder, from, other, to, REAL(renameat)(folder, from, other, to)) }

int renameat2(int folder, const char *from, int other, const char *to, unsigned int flags)
{
    char path[PATH_MAX];
    if (named(other, to, path))
        record(UNKNOWN, path, "renameat2", 0, 0, 0, NULL, 0);
    return REAL(renameat2)(folder, from, other, to, flags);
}

int linkat(int folder, const char *from, int other, const char *to, int flags)
{
    char path[PATH_MAX];
    if (named(other, to, path))
        record(UNKNOWN, path, "linkat", 0, 0, 0, NULL, 0);
    return REAL(linkat)(folder, from, other, to, flags);
}

int link(const char *from, const char *to)
{
    char path[PATH_MAX];
    if (named(AT_FDCWD, to, path))
        record(UNKNOWN, path, "link", 0, 0, 0, NULL, 0);
    return REAL(link)(from, to);
}

#define GONE(folder, path, kind, call)                       \
    char found[PATH_MAX];                                    \
    int is_named = named(folder, path, found);               \
    uint64_t inode = is_named ? inode_at(found) : 0;         \
    int failed = call;                                       \
    if (!failed && is_named)                                 \
        record(kind, found, "", inode, 0, 0, NULL, 0);       \
    return failed;

int unlink(const char *path) { GONE(AT_FDCWD, path, UNLINKED, REAL(unlink)(path)) }
int rmdir(const char *path) { GONE(AT_FDCWD, path, FOLDER_REMOVED, REAL(rmdir)(path)) }
int unlinkat(int folder, const char *path, int flags)
{
    GONE(folder, path, flags & AT_REMOVEDIR ? FOLDER_REMOVED : UNLINKED, REAL(unlinkat)(folder, path, flags))
}

#define MADE(folder, path, call)                                       \
    char found[PATH_MAX];                                              \
    int failed = call;                                                 \
    if (!failed && named(folder, path, found))                         \
        record(FOLDER_MADE, found, "", inode_at(found), 0, 0, NULL, 0); \
    return failed;

int mkdir(const char *path, mode_t mode) { MADE(AT_FDCWD, path, REAL(mkdir)(path, mode)) }
int mkdirat(int folder, const char *path, mode_t mode) { MADE(folder, path, REAL(mkdirat)(folder, path, mode)) }
