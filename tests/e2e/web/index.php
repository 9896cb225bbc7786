<?php
header('X-Script: ' . $_SERVER['SCRIPT_NAME']);
setcookie('seen', 'yes');
if (($_GET['status'] ?? '') !== '') { http_response_code((int) $_GET['status']); }
echo 'php says ', $_SERVER['REQUEST_METHOD'], ' ', $_SERVER['REQUEST_URI'], ' ', $_SERVER['PATH_INFO'] ?? '', ' ';
echo $_SERVER['REMOTE_ADDR'], ' ', strlen(file_get_contents('php://input')), "\n";
