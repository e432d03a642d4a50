// The public status page is made by the server; a page that stays open asks for it anew.

setInterval(() => document.hidden || location.reload(), 60_000);
