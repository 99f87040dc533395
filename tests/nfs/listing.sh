# shellcheck shell=sh
# Shows the tree in the current directory; run by the virtual machine over NFS and by the host on disk.
LC_ALL=C
export LC_ALL
find . | sort | tr '\n' '\0' | xargs -0 stat -c '@stat %n|%f|%u|%g|%s|%h|%t:%T|%Y'
find . -type f | sort | tr '\n' '\0' | xargs -0 sha256sum | sed 's/^/@sum /'
find . -type l | sort | while read -r link; do echo "@link $link $(readlink "$link")"; done
