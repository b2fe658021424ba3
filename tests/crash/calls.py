#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""
Whether the simulator and the recorder see every call that could reach the backing directory.

Usage: calls.py LIBRARY WRAPPED RECORDED

LIBRARY is the archive that is simulated; what it calls and does not define has to be in
WRAPPED (names, separated by semicolons), or below among what touches no file of a volume.
What changes a directory has to be in RECORDED, too.
"""

import re
import subprocess
import sys

# Bring no file of a volume into play, or get a descriptor that has been wrapped for them.
HARMLESS = set('''
    _GLOBAL_OFFSET_TABLE_ __assert_fail __cpu_model __ctype_b_loc __errno_location __popcountdi2
    __stack_chk_fail __tls_get_addr _exit abort asprintf explicit_bzero fprintf fputc free fwrite
    fclose open_memstream geteuid getrlimit madvise malloc_usable_size memcmp memcpy memmove memset
    closelog connect send socket
    mlock mmap munmap nanosleep openlog syslog prctl qsort qsort_r sigaction sigaddset sigemptyset
    sigfillset sigwait snprintf sprintf stderr strcasecmp strchr strcmp strcspn strerror strlen
    strncmp strndup strnlen strpbrk strrchr strsep strstr strtol strtoul strtoull sysconf time
    timegm umask unshare vsnprintf strspn strtok_r strtoll gmtime_r localtime_r strftime getenv memchr
    pthread_cond_destroy pthread_cond_init pthread_condattr_destroy pthread_condattr_init
    pthread_condattr_setclock pthread_getspecific pthread_key_create pthread_key_delete
    pthread_kill pthread_mutex_destroy pthread_mutex_init pthread_mutex_lock pthread_mutex_trylock
    pthread_mutex_unlock pthread_once pthread_rwlock_destroy pthread_rwlock_init
    pthread_rwlock_rdlock pthread_rwlock_unlock pthread_rwlock_wrlock pthread_self
    pthread_setspecific pthread_sigmask pthread_setname_np
    tk_plant_active
'''.split())
# The session with the kernel and its guardian: fs/mount.c, fs/killpriv.c, fs/readahead.c, fs/cpulatency.c.
HARMLESS |= {'execlp', 'fork', 'poll', 'read', 'statx', 'umount2', 'waitpid', 'write', 'writev'}
LIBRARIES = re.compile(r'(EVP|OSSL|BIO|X509|RSA|OPENSSL|CRYPTO|ERR|BN|RAND|PEM|ASN1|EC|SSL|fuse|json|ini)_|OpenSSL_'
                       '|__(asan|ubsan|tsan|sanitizer|aarch64)_')

# Of the calls that are wrapped, those that change nothing: each other one is recorded.
LOOKING = set('''
    close closedir dirfd dup dup3 faccessat fcntl fdopendir fgetxattr flock fstat fstatat fstatfs
    fstatvfs getxattr listxattr lseek lstat name_to_handle_at open open_by_handle_at posix_fadvise pread preadv
    preadv2 readdir readlink readlinkat realpath rewinddir seekdir stat syscall
    clock_gettime getpid getrandom malloc calloc realloc reallocarray strdup tk_scratch_drop
    pthread_cond_broadcast pthread_cond_signal pthread_cond_timedwait pthread_cond_wait
    pthread_create pthread_join
'''.split())


def symbols(library, *options):
    listed = subprocess.run(['nm', '--format=posix', *options, library], check=True, capture_output=True, text=True)
    return {line.split()[0] for line in listed.stdout.split('\n') if len(line.split()) > 1}


def main():
    library, wrapped, recorded = sys.argv[1], set(sys.argv[2].split(';')), set(sys.argv[3].split(';'))
    called = symbols(library, '--undefined-only') - symbols(library, '--defined-only')
    # Newer C libraries have strtol and its like under such names.
    called = {re.sub(r'^__isoc\d+_', '', name) for name in called if not LIBRARIES.match(name)}
    unseen = sorted(called - wrapped - HARMLESS)
    unrecorded = sorted((called & wrapped) - LOOKING - recorded)
    for name in unseen:
        print(f'{name}: called by the library, neither wrapped (CMakeLists.txt, calls.c) nor known here')
    for name in unrecorded:
        print(f'{name}: changes what is below, and is not recorded (CMakeLists.txt, live.c)')
    if not called & {'pwritev', 'renameat2', 'fdatasync'}:
        print(f'{library}: none of the calls that are expected')
        return 1
    return 1 if unseen or unrecorded else 0


if __name__ == '__main__':
    sys.exit(main())
