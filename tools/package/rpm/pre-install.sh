getent group turbopump > /dev/null || groupadd --system turbopump
getent passwd turbopump > /dev/null || useradd --system --gid turbopump --home-dir /var/lib/turbopump --no-create-home \
    --comment "turbopump, a message broker" --shell /sbin/nologin turbopump
