/* A disk with faults, for LD_PRELOAD: the database's files (corefire.db*) as the server writes them, and beside them,
 * in $FAULTS_DIR/disk, what a power cut would leave of them.
 *
 * The page cache is the real file. "The disk" is a copy that a page reaches when an fsync succeeds, and that a file
 * enters when its directory was synced. A failed fsync drops its pages, as Linux does: they count as written, are in the
 * real file, and no later fsync brings them to the disk unless they are written again.
 *
 * $FAULTS_DIR/control is shared with the test: see struct control. Memory that is mapped (corefire.db-shm) and file
 * calls through io_uring are not seen; SQLite uses neither for what it keeps. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define FILES 8
#define PAGES (1 << 16) /* 256 MiB a file */

struct control {
    uint32_t fsync_fault;  /* 1: EIO */
    uint32_t write_fault;  /* 1: EIO; 2: what makes a file longer is cut short, then ENOSPC; 3: short, without an error */
    uint32_t fsync_ms;     /* each fsync takes so much longer */
    uint32_t reserved;
    int64_t wall_s;        /* the wall clock is off by that */
    uint64_t fsyncs;       /* that succeeded */
    uint64_t faults;       /* that were made */
    uint64_t writes;       /* that got through */
};

struct file {
    char name[64];
    unsigned char dirty[PAGES];
};

static struct control *control;
static struct file *files;
static char disk[PATH_MAX], pending[PATH_MAX], watched[PATH_MAX];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_fsync)(int);
static int (*real_ftruncate)(int, off_t);
static int (*real_clock)(clockid_t, struct timespec *);

static void fail(const char *what) {
    fprintf(stderr, "shim: %s: %s\n", what, strerror(errno));
    _exit(97);
}

__attribute__((constructor)) static void start(void) {
    real_write = dlsym(RTLD_NEXT, "write");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    real_clock = dlsym(RTLD_NEXT, "clock_gettime");
    const char *dir = getenv("FAULTS_DIR"), *data = getenv("FAULTS_DATA");
    if (!dir || !data) return;
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/control", dir);
    snprintf(disk, sizeof disk, "%s/disk", dir);
    snprintf(pending, sizeof pending, "%s/pending", dir);
    snprintf(watched, sizeof watched, "%s", data);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) fail(path);
    void *shared = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (shared == MAP_FAILED) fail("mmap");
    close(fd);
    files = calloc(FILES, sizeof *files);
    if (!files) fail("memory");
    control = shared;
}

/* The path behind fd, within the watched directory: "" for the directory itself, NULL for anything else. */
static const char *name_of(int fd, char *path) {
    if (!control) return NULL;
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return NULL;
    path[length] = 0;
    size_t prefix = strlen(watched);
    if (strncmp(path, watched, prefix)) return NULL;
    if (!path[prefix]) return "";
    const char *name = path + prefix + 1;
    if (strncmp(name, "corefire.db", 11) || strstr(name, "-shm")) return NULL;
    return name;
}

static struct file *file_of(const char *name) {
    for (int i = 0; i < FILES; i++) {
        if (!files[i].name[0]) snprintf(files[i].name, sizeof files[i].name, "%s", name);
        if (!strcmp(files[i].name, name)) return &files[i];
    }
    errno = ENFILE;
    fail(name);
    return NULL;
}

static void mark(struct file *file, off_t from, off_t to) {
    if (to > (off_t)PAGES * PAGE) {
        errno = EFBIG;
        fail(file->name);
    }
    for (off_t page = from / PAGE; page * PAGE < to; page++) file->dirty[page] = 1;
}

/* Brings what is dirty to the disk. */
static void persist(int fd, struct file *file) {
    char path[PATH_MAX + 80], page[PAGE];
    struct stat stat;
    snprintf(path, sizeof path, "%s/%s", disk, file->name);
    int to = open(path, O_WRONLY | O_CLOEXEC);
    if (to < 0) {
        snprintf(path, sizeof path, "%s/%s", pending, file->name);
        to = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    }
    if (to < 0 || fstat(fd, &stat)) fail(path);
    for (off_t i = 0; i < PAGES; i++) {
        if (!file->dirty[i]) continue;
        file->dirty[i] = 0;
        ssize_t length = pread(fd, page, PAGE, i * PAGE);
        if (length > 0 && real_pwrite(to, page, (size_t)length, i * PAGE) != length) fail(path);
    }
    if (real_ftruncate(to, stat.st_size)) fail(path);
    close(to);
}

/* The directory was synced: its new files are there to stay. */
static void link_files(void) {
    char from[PATH_MAX + 80], to[PATH_MAX + 80];
    for (int i = 0; i < FILES && files[i].name[0]; i++) {
        snprintf(from, sizeof from, "%s/%s", pending, files[i].name);
        snprintf(to, sizeof to, "%s/%s", disk, files[i].name);
        rename(from, to);
    }
}

static ssize_t written(int fd, const void *bytes, size_t count, off_t offset, int is_positioned) {
    char path[PATH_MAX];
    const char *name = name_of(fd, path);
    if (!name || !*name)
        return is_positioned ? real_pwrite(fd, bytes, count, offset) : real_write(fd, bytes, count);
    pthread_mutex_lock(&lock);
    ssize_t done = -1;
    struct stat stat;
    if (!is_positioned) offset = lseek(fd, 0, SEEK_CUR);
    uint32_t fault = control->write_fault;
    if (fault == 2 && (fstat(fd, &stat) || offset + (off_t)count <= stat.st_size)) fault = 0;
    if (fault == 1 || (fault == 2 && count <= 512)) {
        control->faults++;
        errno = fault == 1 ? EIO : ENOSPC;
    } else {
        if (fault) {
            control->faults++;
            count = count > 1 ? count / 2 : count;
        }
        done = is_positioned ? real_pwrite(fd, bytes, count, offset) : real_write(fd, bytes, count);
        if (done > 0) mark(file_of(name), offset, offset + done);
        control->writes++;
    }
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

ssize_t write(int fd, const void *bytes, size_t count) {
    return written(fd, bytes, count, 0, 0);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
    return written(fd, bytes, count, offset, 1);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) {
    return written(fd, bytes, count, offset, 1);
}

int fsync(int fd) {
    char path[PATH_MAX];
    const char *name = name_of(fd, path);
    if (!name) return real_fsync(fd);
    if (*name && control->fsync_ms) usleep(control->fsync_ms * 1000);
    pthread_mutex_lock(&lock);
    int result = 0;
    if (control->fsync_fault) {
        control->faults++;
        if (*name) memset(file_of(name)->dirty, 0, PAGES);
        errno = EIO;
        result = -1;
    } else {
        /* The copy stands for the disk: there is no need to wait for the real one. */
        if (*name) persist(fd, file_of(name));
        else link_files();
        control->fsyncs++;
    }
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int fdatasync(int fd) {
    return fsync(fd);
}

static int truncated(int fd, off_t length) {
    char path[PATH_MAX];
    struct stat stat;
    const char *name = name_of(fd, path);
    if (!name || !*name) return real_ftruncate(fd, length);
    pthread_mutex_lock(&lock);
    int result = fstat(fd, &stat) ? -1 : real_ftruncate(fd, length);
    /* What lies between the two lengths is not what it was, should the file grow again. */
    if (!result && stat.st_size > length) mark(file_of(name), length, stat.st_size);
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int ftruncate(int fd, off_t length) {
    return truncated(fd, length);
}

int ftruncate64(int fd, off64_t length) {
    return truncated(fd, length);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = real_clock ? real_clock(clock, now) : (int)syscall(SYS_clock_gettime, clock, now);
    if (!result && control && clock == CLOCK_REALTIME) now->tv_sec += control->wall_s;
    return result;
}
