[ -d /var/lib/turbopump ] || install -d -o turbopump -g turbopump -m 0750 /var/lib/turbopump
chown root:turbopump /etc/turbopump
chmod 0750 /etc/turbopump
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    # As an rpm does: `systemctl enable --now turbopump` is its administrator's to say.
    [ "$1" -gt 1 ] && systemctl try-restart turbopump.service || :
fi
