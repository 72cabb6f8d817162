#!/bin/sh
# Installed as /usr/local/sbin/filmroom: what root types on a machine with these units. It runs the command as the
# units run theirs: as the user filmroom, with the same settings and secrets, and no secret on a command line.
set -eu
etc=/etc/filmroom
if [ "$(id -u)" != 0 ]; then
    echo "filmroom: only root can read the credentials in $etc; use sudo." >&2
    exit 1
fi
if [ -r "$etc/filmroom.env" ]; then
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
        [A-Z]*=*) export "${line?}" ;;
        esac
    done <"$etc/filmroom.env"
fi
for name in DATABASE_URL REDIS_URL SECRET_KEY; do
    file=$etc/credentials/$(echo "$name" | tr '[:upper:]' '[:lower:]')
    [ ! -r "$file" ] || export "$name=$(cat "$file")"
done
export FILMROOM_HOME=/var/lib/filmroom FILMROOM_CONFIG="$etc/filmroom.toml" DICOM_PEERS="$etc/peers.toml"
cd /
exec setpriv --reuid=filmroom --regid=filmroom --init-groups -- /opt/filmroom/bin/filmroom "$@"
