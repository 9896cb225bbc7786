# A psql that the torture must not disturb: one transaction after the other in table `step`, each of which counts what
# the others have left. $DATABASE, $PERIOD, in seconds. Prints figures as guest-torture does.

until psql -qc 'CREATE TABLE IF NOT EXISTS step (i bigint PRIMARY KEY)' "$DATABASE"; do sleep 0.2; done

end=$(($(date +%s) + PERIOD))
i=0
while [ "$(date +%s)" -lt $end ]; do
    i=$((i + 1))
    echo "\\echo step $i"
    echo "BEGIN; INSERT INTO step VALUES ($i); SELECT count(*) FROM step; COMMIT;"
done | {
    # What it complains of, with the time.
    psql -At -v VERBOSITY=sqlstate "$DATABASE" 2>&1 >/run/steps || echo "ERROR:  exit $?"
} | while read -r complaint; do
    echo "$(date +%s) ${complaint##* }"
done >/run/complaints

psql -qAtc 'SELECT i FROM step' "$DATABASE" >/run/found || exit 1
# Each count is of all that was committed before, and of the step itself.
anomalies=$(awk '
    /^step / { i = $2 }
    /^COMMIT$/ { print i >"/run/told"; n++ }
    /^[0-9]+$/ && $1 != n + 1 { anomalies++ }
    END { print anomalies + 0 }
' /run/steps)
awk -v anomalies="$anomalies" '
    FILENAME == "/run/found" { found[$1] = 1 }
    FILENAME == "/run/told" { told[$1] = 1; done++; if (!($1 in found)) lost++ }
    # 25P02: what comes behind a statement that failed.
    FILENAME == "/run/complaints" && $2 == 53100 { full = full (full == "" ? "" : ",") $1 }
    FILENAME == "/run/complaints" && $2 == 40001 { retried++ }
    FILENAME == "/run/complaints" && $2 !~ /^(53100|40001|25P02)$/ { errors++; print "psql was told " $2 >"/dev/stderr" }
    END {
        for (i in found) if (!(i in told)) anomalies++
        printf "done=%d retried=%d lost=%d duplicated=0 anomalies=%d client_errors=%d full_at=%s\n",
            done, retried, lost, anomalies, errors, full
    }
' /run/found /run/told /run/complaints
