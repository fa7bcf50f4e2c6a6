# SPDX-License-Identifier: GPL-2.0
#
# The commands that documents show, one a line: FILE, a tab, COMMAND. They are in indented blocks, by
# themselves, that begin with the name of a program. What follows after three spaces explains the
# command. Loops come as one command.

function is_program(word) {
	return word ~ /^(make|drrctl|dmsetup|modprobe|insmod|modinfo|mount|md5sum|cd|cat|echo|for|perf|bpftrace|git|apt|systemctl|dkms|mokutil|scripts\/[a-z.-]+)$/
}

FNR == 1 { blank = 1; block = 0; loop = "" }

/^[ \t]*$/ { blank = 1; block = 0; next }

{
	line = $0
	indented = sub(/^(   +|\t)/, "", line)
	sub(/^ +/, "", line)
	if (blank && indented)
		block = is_program($1)
	else if (!indented)
		block = 0
	blank = 0
	if (!block)
		next
	sub(/   +.*/, "", line)
	if (loop != "" || line ~ /^for /) {
		loop = loop (loop == "" || loop ~ /do$/ ? "" : ";") " " line
		if (line != "done")
			next
		line = substr(loop, 2)
		loop = ""
	}
	print FILENAME "\t" line
}
