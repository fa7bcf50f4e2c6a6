// SPDX-License-Identifier: GPL-2.0
/*
 * Runs a program in a terminal of its own, 80x24, and presses a key.
 *
 *   drr-pty SECONDS KEY PROGRAM [ARGUMENT]...
 *	KEY is what the terminal sends, or TERM for the signal. All that the program writes
 *	goes to standard output. Exit status: the program's; 124 if it was still there five
 *	seconds after the key; 125 if it left the terminal in another mode.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* Passes on what the program writes until then; true if it is at its end. */
static int pass_on(int fd, pid_t child, double until, int *status)
{
	char text[4096];

	while (now() < until) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		ssize_t length;

		if (poll(&p, 1, 50) > 0 && p.revents & POLLIN) {
			length = read(fd, text, sizeof(text));
			if (length > 0 && write(1, text, length) != length)
				return 0;
			continue;
		}
		if (waitpid(child, status, WNOHANG) == child)
			return 1;
	}
	return 0;
}

static int fail(const char *what)
{
	perror(what);
	return 126;
}

int main(int argc, char **argv)
{
	struct winsize size = { .ws_row = 24, .ws_col = 80 };
	struct termios before, after;
	int master, terminal, status;
	pid_t child;

	if (argc < 4) {
		fprintf(stderr, "usage: drr-pty SECONDS KEY PROGRAM [ARGUMENT]...\n");
		return 126;
	}
	master = posix_openpt(O_RDWR | O_NOCTTY);
	if (master < 0 || grantpt(master) || unlockpt(master))
		return fail("posix_openpt");
	terminal = open(ptsname(master), O_RDWR | O_NOCTTY);
	if (terminal < 0 || tcgetattr(terminal, &before) || ioctl(terminal, TIOCSWINSZ, &size))
		return fail("terminal");

	child = fork();
	if (child < 0)
		return fail("fork");
	if (!child) {
		setsid();
		ioctl(terminal, TIOCSCTTY, 0);
		dup2(terminal, 0);
		dup2(terminal, 1);
		dup2(terminal, 2);
		close(terminal);
		close(master);
		setenv("TERM", "xterm-256color", 1);
		execvp(argv[3], argv + 3);
		_exit(127);
	}
	if (!pass_on(master, child, now() + atof(argv[1]), &status)) {
		if (!strcmp(argv[2], "TERM"))
			kill(child, SIGTERM);
		else if (write(master, argv[2], strlen(argv[2])) < 0)
			return fail("write");
		if (!pass_on(master, child, now() + 5, &status)) {
			kill(child, SIGKILL);
			return 124;
		}
	}
	if (tcgetattr(terminal, &after))
		return fail("terminal");
	if (before.c_lflag != after.c_lflag || before.c_iflag != after.c_iflag ||
	    before.c_oflag != after.c_oflag)
		return 125;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
