/* SPDX-License-Identifier: Apache-2.0 */

/*
 * System calls.
 *
 * Allowed is what a mount takes, with libfuse, libcurl, the name service and a token's
 * module: so more than we call ourselves. What is forbidden answers EPERM. Everything else
 * answers ENOSYS, as an older kernel would: libraries have another way then.
 */

#include "cli/harden.h"

#include <errno.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/prctl.h>
#include <sys/socket.h>

/* Files, below and elsewhere. */
static const int files[] = {
        SCMP_SYS(read),
        SCMP_SYS(write),
        SCMP_SYS(readv),
        SCMP_SYS(writev),
        SCMP_SYS(pread64),
        SCMP_SYS(pwrite64),
        SCMP_SYS(preadv),
        SCMP_SYS(pwritev),
        SCMP_SYS(preadv2),
        SCMP_SYS(pwritev2),
        SCMP_SYS(open),
        SCMP_SYS(openat),
        SCMP_SYS(openat2),
        SCMP_SYS(creat),
        SCMP_SYS(close),
        SCMP_SYS(close_range),
        SCMP_SYS(stat),
        SCMP_SYS(fstat),
        SCMP_SYS(lstat),
        SCMP_SYS(newfstatat),
        SCMP_SYS(statx),
        SCMP_SYS(access),
        SCMP_SYS(faccessat),
        SCMP_SYS(faccessat2),
        SCMP_SYS(lseek),
        SCMP_SYS(dup),
        SCMP_SYS(dup2),
        SCMP_SYS(dup3),
        SCMP_SYS(fcntl),
        SCMP_SYS(flock),
        SCMP_SYS(fsync),
        SCMP_SYS(fdatasync),
        SCMP_SYS(sync),
        SCMP_SYS(syncfs),
        SCMP_SYS(sync_file_range),
        SCMP_SYS(truncate),
        SCMP_SYS(ftruncate),
        SCMP_SYS(fallocate),
        SCMP_SYS(getdents),
        SCMP_SYS(getdents64),
        SCMP_SYS(getcwd),
        SCMP_SYS(chdir),
        SCMP_SYS(fchdir),
        SCMP_SYS(rename),
        SCMP_SYS(renameat),
        SCMP_SYS(renameat2),
        SCMP_SYS(mkdir),
        SCMP_SYS(mkdirat),
        SCMP_SYS(rmdir),
        SCMP_SYS(link),
        SCMP_SYS(linkat),
        SCMP_SYS(unlink),
        SCMP_SYS(unlinkat),
        SCMP_SYS(symlink),
        SCMP_SYS(symlinkat),
        SCMP_SYS(readlink),
        SCMP_SYS(readlinkat),
        SCMP_SYS(chmod),
        SCMP_SYS(fchmod),
        SCMP_SYS(fchmodat),
        SCMP_SYS(chown),
        SCMP_SYS(fchown),
        SCMP_SYS(lchown),
        SCMP_SYS(fchownat),
        SCMP_SYS(umask),
        SCMP_SYS(utime),
        SCMP_SYS(utimes),
        SCMP_SYS(utimensat),
        SCMP_SYS(futimesat),
        SCMP_SYS(mknod),
        SCMP_SYS(mknodat),
        SCMP_SYS(statfs),
        SCMP_SYS(fstatfs),
        SCMP_SYS(setxattr),
        SCMP_SYS(lsetxattr),
        SCMP_SYS(fsetxattr),
        SCMP_SYS(getxattr),
        SCMP_SYS(lgetxattr),
        SCMP_SYS(fgetxattr),
        SCMP_SYS(listxattr),
        SCMP_SYS(llistxattr),
        SCMP_SYS(flistxattr),
        SCMP_SYS(removexattr),
        SCMP_SYS(lremovexattr),
        SCMP_SYS(fremovexattr),
        SCMP_SYS(name_to_handle_at),
        SCMP_SYS(open_by_handle_at),
        SCMP_SYS(copy_file_range),
        SCMP_SYS(sendfile),
        SCMP_SYS(splice),
        SCMP_SYS(tee),
        SCMP_SYS(vmsplice),
        SCMP_SYS(fadvise64),
        SCMP_SYS(readahead),
        SCMP_SYS(ioctl),
        SCMP_SYS(memfd_create),
        SCMP_SYS(inotify_init),
        SCMP_SYS(inotify_init1),
        SCMP_SYS(inotify_add_watch),
        SCMP_SYS(inotify_rm_watch),
};

/* Waiting. */
static const int waiting[] = {
        SCMP_SYS(poll),
        SCMP_SYS(ppoll),
        SCMP_SYS(select),
        SCMP_SYS(pselect6),
        SCMP_SYS(epoll_create),
        SCMP_SYS(epoll_create1),
        SCMP_SYS(epoll_ctl),
        SCMP_SYS(epoll_wait),
        SCMP_SYS(epoll_pwait),
        SCMP_SYS(epoll_pwait2),
        SCMP_SYS(eventfd),
        SCMP_SYS(eventfd2),
        SCMP_SYS(signalfd),
        SCMP_SYS(signalfd4),
        SCMP_SYS(pipe),
        SCMP_SYS(pipe2),
        SCMP_SYS(timerfd_create),
        SCMP_SYS(timerfd_settime),
        SCMP_SYS(timerfd_gettime),
};

/* Memory, shared memory of tokens' modules included. */
static const int memory[] = {
        SCMP_SYS(brk),           SCMP_SYS(mmap),          SCMP_SYS(munmap),     SCMP_SYS(mremap),
        SCMP_SYS(mprotect),      SCMP_SYS(msync),         SCMP_SYS(mincore),    SCMP_SYS(madvise),
        SCMP_SYS(mlock),         SCMP_SYS(mlock2),        SCMP_SYS(munlock),    SCMP_SYS(mlockall),
        SCMP_SYS(munlockall),    SCMP_SYS(membarrier),    SCMP_SYS(pkey_alloc), SCMP_SYS(pkey_free),
        SCMP_SYS(pkey_mprotect), SCMP_SYS(get_mempolicy), SCMP_SYS(shmget),     SCMP_SYS(shmat),
        SCMP_SYS(shmdt),         SCMP_SYS(shmctl),        SCMP_SYS(semget),     SCMP_SYS(semop),
        SCMP_SYS(semctl),        SCMP_SYS(semtimedop),
};

/* Threads, children, signals, identity. */
static const int processes[] = {
        SCMP_SYS(exit),
        SCMP_SYS(exit_group),
        SCMP_SYS(fork),
        SCMP_SYS(vfork),
        SCMP_SYS(wait4),
        SCMP_SYS(waitid),
        SCMP_SYS(kill),
        SCMP_SYS(tkill),
        SCMP_SYS(tgkill),
        SCMP_SYS(getpid),
        SCMP_SYS(gettid),
        SCMP_SYS(getppid),
        SCMP_SYS(getpgrp),
        SCMP_SYS(getpgid),
        SCMP_SYS(getsid),
        SCMP_SYS(setsid),
        SCMP_SYS(setpgid),
        SCMP_SYS(getuid),
        SCMP_SYS(geteuid),
        SCMP_SYS(getgid),
        SCMP_SYS(getegid),
        SCMP_SYS(getresuid),
        SCMP_SYS(getresgid),
        SCMP_SYS(getgroups),
        SCMP_SYS(setfsuid),
        SCMP_SYS(setfsgid),
        SCMP_SYS(capget),
        SCMP_SYS(set_tid_address),
        SCMP_SYS(set_robust_list),
        SCMP_SYS(get_robust_list),
        SCMP_SYS(rseq),
        SCMP_SYS(arch_prctl),
        SCMP_SYS(futex),
        SCMP_SYS(futex_waitv),
        SCMP_SYS(sched_yield),
        SCMP_SYS(sched_getaffinity),
        SCMP_SYS(sched_setaffinity),
        SCMP_SYS(sched_getparam),
        SCMP_SYS(sched_getscheduler),
        SCMP_SYS(sched_get_priority_max),
        SCMP_SYS(sched_get_priority_min),
        SCMP_SYS(getpriority),
        SCMP_SYS(setpriority),
        SCMP_SYS(getcpu),
        SCMP_SYS(getrlimit),
        SCMP_SYS(setrlimit),
        SCMP_SYS(prlimit64),
        SCMP_SYS(getrusage),
        SCMP_SYS(times),
        SCMP_SYS(sysinfo),
        SCMP_SYS(uname),
        SCMP_SYS(rt_sigaction),
        SCMP_SYS(rt_sigprocmask),
        SCMP_SYS(rt_sigreturn),
        SCMP_SYS(rt_sigpending),
        SCMP_SYS(rt_sigsuspend),
        SCMP_SYS(rt_sigtimedwait),
        SCMP_SYS(rt_sigqueueinfo),
        SCMP_SYS(rt_tgsigqueueinfo),
        SCMP_SYS(sigaltstack),
        SCMP_SYS(pause),
        SCMP_SYS(restart_syscall),
        SCMP_SYS(pidfd_open),
        SCMP_SYS(pidfd_send_signal),
        SCMP_SYS(getrandom),
        SCMP_SYS(seccomp),
        SCMP_SYS(landlock_create_ruleset),
        SCMP_SYS(landlock_add_rule),
        SCMP_SYS(landlock_restrict_self),
};

/* Time. */
static const int time_calls[] = {
        SCMP_SYS(alarm),
        SCMP_SYS(setitimer),
        SCMP_SYS(getitimer),
        SCMP_SYS(timer_create),
        SCMP_SYS(timer_settime),
        SCMP_SYS(timer_gettime),
        SCMP_SYS(timer_getoverrun),
        SCMP_SYS(timer_delete),
        SCMP_SYS(nanosleep),
        SCMP_SYS(clock_nanosleep),
        SCMP_SYS(clock_gettime),
        SCMP_SYS(clock_getres),
        SCMP_SYS(gettimeofday),
        SCMP_SYS(time),
};

/* Sockets; which ones, below. */
static const int network[] = {
        SCMP_SYS(socketpair), SCMP_SYS(connect),  SCMP_SYS(accept),      SCMP_SYS(accept4),
        SCMP_SYS(bind),       SCMP_SYS(listen),   SCMP_SYS(getsockname), SCMP_SYS(getpeername),
        SCMP_SYS(sendto),     SCMP_SYS(recvfrom), SCMP_SYS(sendmsg),     SCMP_SYS(recvmsg),
        SCMP_SYS(sendmmsg),   SCMP_SYS(recvmmsg), SCMP_SYS(shutdown),    SCMP_SYS(setsockopt),
        SCMP_SYS(getsockopt),
};

/* Of other processes, of the machine, of mounts and of keyrings; and what would undo the rest. */
static const int forbidden[] = {
        SCMP_SYS(ptrace),
        SCMP_SYS(process_vm_readv),
        SCMP_SYS(process_vm_writev),
        SCMP_SYS(process_madvise),
        SCMP_SYS(kcmp),
        SCMP_SYS(pidfd_getfd),
        SCMP_SYS(bpf),
        SCMP_SYS(perf_event_open),
        SCMP_SYS(kexec_load),
        SCMP_SYS(kexec_file_load),
        SCMP_SYS(init_module),
        SCMP_SYS(finit_module),
        SCMP_SYS(delete_module),
        SCMP_SYS(mount),
        SCMP_SYS(umount2),
        SCMP_SYS(move_mount),
        SCMP_SYS(open_tree),
        SCMP_SYS(fsopen),
        SCMP_SYS(fsconfig),
        SCMP_SYS(fsmount),
        SCMP_SYS(fspick),
        SCMP_SYS(mount_setattr),
        SCMP_SYS(pivot_root),
        SCMP_SYS(chroot),
        SCMP_SYS(setns),
        SCMP_SYS(personality),
        SCMP_SYS(userfaultfd),
        SCMP_SYS(add_key),
        SCMP_SYS(request_key),
        SCMP_SYS(keyctl),
        SCMP_SYS(setuid),
        SCMP_SYS(setgid),
        SCMP_SYS(setreuid),
        SCMP_SYS(setregid),
        SCMP_SYS(setresuid),
        SCMP_SYS(setresgid),
        SCMP_SYS(setgroups),
        SCMP_SYS(capset),
        SCMP_SYS(reboot),
        SCMP_SYS(swapon),
        SCMP_SYS(swapoff),
        SCMP_SYS(sethostname),
        SCMP_SYS(setdomainname),
        SCMP_SYS(settimeofday),
        SCMP_SYS(clock_settime),
        SCMP_SYS(clock_adjtime),
        SCMP_SYS(adjtimex),
        SCMP_SYS(acct),
        SCMP_SYS(quotactl),
        SCMP_SYS(quotactl_fd),
        SCMP_SYS(iopl),
        SCMP_SYS(ioperm),
        SCMP_SYS(modify_ldt),
        SCMP_SYS(syslog),
        SCMP_SYS(vhangup),
        SCMP_SYS(fanotify_init),
        SCMP_SYS(fanotify_mark),
        SCMP_SYS(migrate_pages),
        SCMP_SYS(move_pages),
        SCMP_SYS(sched_setscheduler),
        SCMP_SYS(sched_setparam),
        SCMP_SYS(sched_setattr),
};

static const int programs[] = {
        SCMP_SYS(execve),
        SCMP_SYS(execveat),
};

static const int uring[] = {
        SCMP_SYS(io_uring_setup),
        SCMP_SYS(io_uring_enter),
        SCMP_SYS(io_uring_register),
};

/* Namespaces, in clone and unshare. */
enum {
        NAMESPACES = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |
                     CLONE_NEWPID | CLONE_NEWNET,
};

static int add(scmp_filter_ctx filter, uint32_t action, const int *calls, size_t count)
{
        int r = 0;

        for (size_t i = 0; i < count && r == 0; i++)
                r = seccomp_rule_add(filter, action, calls[i], 0);
        return r;
}

#define ADD(filter, action, calls) add(filter, action, calls, sizeof(calls) / sizeof((calls)[0]))

static int add_sockets(scmp_filter_ctx filter)
{
        static const int families[] = {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK};
        int r = 0;

        for (size_t i = 0; i < sizeof(families) / sizeof(families[0]) && r == 0; i++)
                r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1,
                                     SCMP_A0_32(SCMP_CMP_EQ, families[i]));
        return r;
}

/* A name for a thread, and questions; no core dumps, and no other securebits. */
static int add_prctl(scmp_filter_ctx filter)
{
        static const unsigned options[] = {
                PR_SET_NAME,       PR_GET_NAME,         PR_GET_DUMPABLE,     PR_SET_PDEATHSIG,
                PR_GET_SECCOMP,    PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS, PR_CAPBSET_READ,
                PR_GET_SECUREBITS, PR_SET_VMA,
        };
        int r = 0;

        for (size_t i = 0; i < sizeof(options) / sizeof(options[0]) && r == 0; i++)
                r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1,
                                     SCMP_A0_32(SCMP_CMP_EQ, options[i]));
        return r;
}

/* clone3 has its flags in memory, out of a filter's sight: libc falls back on clone. */
static int add_threads(scmp_filter_ctx filter)
{
        int r;

        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
                             SCMP_A0(SCMP_CMP_MASKED_EQ, NAMESPACES, 0));
        if (r == 0)
                r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(unshare), 1,
                                     SCMP_A0_32(SCMP_CMP_EQ, CLONE_FS)); /* fs/creds.c */
        return r;
}

/* What sanitizers do to their own process. */
static int add_sanitizers(scmp_filter_ctx filter)
{
#ifdef TK_SANITIZED
        static const int calls[] = {SCMP_SYS(ptrace), SCMP_SYS(personality), SCMP_SYS(prctl)};

        return ADD(filter, SCMP_ACT_ALLOW, calls);
#else
        (void)filter;
        return 0;
#endif
}

static int add_all(scmp_filter_ctx filter, const struct tk_harden_calls *allowed)
{
        const uint32_t refuse = SCMP_ACT_ERRNO(EPERM);
        int r;

        r = add_sanitizers(filter);
        if (r == 0)
                r = ADD(filter, SCMP_ACT_ALLOW, files);
        if (r == 0)
                r = ADD(filter, SCMP_ACT_ALLOW, waiting);
        if (r == 0)
                r = ADD(filter, SCMP_ACT_ALLOW, memory);
        if (r == 0)
                r = ADD(filter, SCMP_ACT_ALLOW, processes);
        if (r == 0)
                r = ADD(filter, SCMP_ACT_ALLOW, time_calls);
        if (r == 0)
                r = ADD(filter, SCMP_ACT_ALLOW, network);
        if (r == 0)
                r = ADD(filter, allowed->programs ? SCMP_ACT_ALLOW : refuse, programs);
        if (r == 0)
                r = ADD(filter, allowed->io_uring ? SCMP_ACT_ALLOW : refuse, uring);
        if (r == 0)
                r = ADD(filter, refuse, forbidden);
        if (r == 0)
                r = add_sockets(filter);
        if (r == 0)
                r = add_prctl(filter);
        if (r == 0)
                r = add_threads(filter);
        return r;
}

int tk_harden_calls(const struct tk_harden_calls *allowed)
{
        scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(ENOSYS));
        int r;

        if (!filter)
                return -ENOMEM;
        r = add_all(filter, allowed);
        /* A tree instead of a list of comparisons; and no slower CPU for all that follows. */
        if (r == 0)
                r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
        if (r == 0)
                r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_SSB, 1);
        if (r == 0)
                r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
        if (r == 0)
                r = seccomp_load(filter);
        seccomp_release(filter);
        return r;
}
