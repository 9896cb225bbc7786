"""A small Django application: a page, a form with a cookie, an answer that is made bit by bit."""
import time

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

settings.configure(
    SECRET_KEY="none",
    ALLOWED_HOSTS=["django.example"],
    ROOT_URLCONF=__name__,
    SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"),
    USE_X_FORWARDED_HOST=True,
)


def page(request):
    return HttpResponse(f"django says {request.method} {request.build_absolute_uri()}\n")


@csrf_exempt
def form(request):
    response = HttpResponse(f"{request.POST['name']} {len(request.FILES['file'].read())}")
    response.set_cookie("name", request.POST["name"])
    return response


def slowly():
    for number in range(5):
        yield f"{number}\n"
        time.sleep(0.1)


urlpatterns = [
    path("", page),
    path("form", form),
    path("slowly", lambda request: StreamingHttpResponse(slowly(), content_type="text/plain")),
]
application = get_wsgi_application()
