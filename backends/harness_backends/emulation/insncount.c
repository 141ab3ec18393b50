/* A TCG plugin for qemu-aarch64: counts the guest's instructions and writes the count at marks.
 *
 * The guest makes a mark with a system call of a number that no kernel has (MARK), its first
 * argument the mark's label; the kernel's answer is ENOSYS, so a mark costs the guest next to
 * nothing. Each mark appends one line of two decimal numbers, label and count, to the file that
 * `out=` names. The line is there when the call returns: the guest reads the file itself.
 *
 * Counted are executed instructions, translation block by translation block, of every thread of
 * the process. QEMU's inline counters are not atomic, so two threads would lose each other's
 * additions: each virtual CPU, which is one thread, adds to a counter of its own in a callback. A
 * mark sums them all; what another thread has executed since its last block began is not in it.
 *
 * A child of fork() has a copy of the counters and the same file: differences stay right as long
 * as only one of the processes makes marks. execve() ends the counting.
 *
 * The prototypes are those of QEMU's plugin API, version 1; no header of QEMU's is needed.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define MARK 4242     /* agent/counting.py has the same number */
#define VCPUS 1024    /* threads that count apart; those beyond share counters */
#define CACHE_LINE 64 /* bytes: counters of two threads never lie on one line */

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
enum { NO_REGISTERS = 0 }; /* the callback reads and writes no guest register */

typedef void (*on_block)(unsigned vcpu, void *instructions);
typedef void (*on_translation)(plugin_id, struct qemu_plugin_tb *);
typedef void (*on_syscall)(plugin_id, unsigned vcpu, int64_t number, uint64_t, uint64_t, uint64_t,
                           uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);

extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, on_block, int, void *);
extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, on_translation);
extern void qemu_plugin_register_vcpu_syscall_cb(plugin_id, on_syscall);

EXPORT int qemu_plugin_version = 1;

static struct {
    uint64_t executed;
    char padding[CACHE_LINE - sizeof(uint64_t)];
} counters[VCPUS];
static const char *out; /* path of the file of marks */

/* A translation block is about to be executed whole. */
static void executed(unsigned vcpu, void *instructions)
{
    counters[vcpu % VCPUS].executed += (uintptr_t)instructions;
}

static void translated(plugin_id id, struct qemu_plugin_tb *block)
{
    uintptr_t instructions = qemu_plugin_tb_n_insns(block);

    (void)id;
    qemu_plugin_register_vcpu_tb_exec_cb(block, executed, NO_REGISTERS, (void *)instructions);
}

/* Open the file anew each time: a descriptor held open would be one that the guest can close. A line
 * that is missing or short (disk full) is noticed by the guest, which counts them. */
static void append(const char *line, size_t length)
{
    int file = open(out, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

    if (file < 0)
        return;
    if (write(file, line, length) < 0)
        perror("insncount");
    close(file);
}

static void called(plugin_id id, unsigned vcpu, int64_t number, uint64_t label, uint64_t a2,
                   uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    char line[64];
    uint64_t total = 0;
    int length;

    (void)id, (void)vcpu, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (number != MARK)
        return;
    for (int i = 0; i < VCPUS; i++)
        total += counters[i].executed;
    length = snprintf(line, sizeof line, "%llu %llu\n", (unsigned long long)label,
                      (unsigned long long)total);
    append(line, (size_t)length);
}

EXPORT int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
    (void)info;
    for (int i = 0; i < argc; i++)
        if (!strncmp(argv[i], "out=", 4))
            out = strdup(argv[i] + 4);
    if (!out) {
        fprintf(stderr, "insncount: out=FILE is missing\n");
        return -1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, called);
    return 0;
}
