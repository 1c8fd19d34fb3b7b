# 0: nothing of the package is left after this.
if [ "$1" -eq 0 ] && [ -d /run/systemd/system ]; then
    systemctl disable --now turbopump.service || :
fi
