# Sourced: what a page of figures says of where they are from.  DIR: the directory that was measured.
machine() { # machine COMMAND
  local cpu
  cpu=$(awk -F ': ' '/^model name/ { print $2; exit }' /proc/cpuinfo)
  echo "Written by \`$1\`."
  echo
  echo "- date: $(date -u '+%F %H:%M') UTC"
  echo "- machine: $(nproc) cores ($cpu), $(awk '/^MemTotal/ { printf "%d", ($2 + 524288) / 1048576 }' /proc/meminfo) GiB"
  echo "- kernel: $(uname -sr)"
  echo "- file system: $(findmnt -no FSTYPE,SOURCE,OPTIONS -T "$2")"
  echo "- load average when it began: $(cut -d ' ' -f 1-3 /proc/loadavg)"
  echo
}
