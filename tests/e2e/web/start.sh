# Starts every server in the guest and waits until it answers on its socket. Runs in the guest's own root.
set -e
mkdir -p /tmp/web/www /tmp/web/tomcat/conf /tmp/web/tomcat/webapps/ROOT /tmp/web/tomcat/logs /tmp/web/tomcat/temp
cp /web/* /tmp/web
cp /web/index.php /tmp/web/www
cp /web/server.xml /web/web.xml /tmp/web/tomcat/conf
head -c 1024 /dev/zero | tr '\0' 'k' >/tmp/web/www/1k.txt
head -c 102400 /dev/zero | tr '\0' 'h' >/tmp/web/www/100k.txt
head -c 33554432 /dev/urandom >/tmp/web/www/32m.bin
echo 'tomcat says hello' >/tmp/web/tomcat/webapps/ROOT/hello.txt
chmod -R a+rX /tmp/web
chmod a+rwx /tmp/web
ip link set lo up 2>/dev/null || ifconfig lo up
chroot /debian nginx -c /tmp/web/nginx.conf
chroot /debian sh -c 'exec php-fpm* -y /tmp/web/php-fpm.conf' 2>/dev/null || chroot /debian sh -c '$(ls /usr/sbin/php-fpm*) -y /tmp/web/php-fpm.conf'
chroot /debian apache2 -f /tmp/web/apache.conf
(cd /debian && chroot /debian sh -c 'cd /tmp/web && exec gunicorn --threads 4 --bind unix:/tmp/web/django.sock --worker-tmp-dir /dev/shm application:application' >/tmp/web/gunicorn.log 2>&1 &)
(chroot /debian node /tmp/web/server.js >/tmp/web/node.log 2>&1 &)
(chroot /debian java -Xint -Xshare:auto -XX:TieredStopAtLevel=1 -cp /usr/share/tomcat10/bin/bootstrap.jar:/usr/share/tomcat10/bin/tomcat-juli.jar \
    -Dcatalina.home=/usr/share/tomcat10 -Dcatalina.base=/tmp/web/tomcat -Djava.io.tmpdir=/tmp/web/tomcat/temp \
    org.apache.catalina.startup.Bootstrap start >/tmp/web/tomcat.log 2>&1 &)
