/* A page opened from disk may not start a worker; an iframe that posts messages does its work. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const script = "<script>postMessage = (data) => parent.postMessage(data, '*')</script>";
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.frame.srcdoc = `${script}<script src="${url}"></script>`;
      this.ready = new Promise((done) => (this.frame.onload = done));
      document.body.append(this.frame);
      addEventListener("message", (event) => {
        if (event.source === this.frame.contentWindow) {
          event.stopImmediatePropagation();
          this.dispatchEvent(new MessageEvent("message", { data: event.data }));
        }
      });
    }

    postMessage(data) {
      this.ready.then(() => postMessage.call(this.frame.contentWindow, data, "*"));
    }
  };
}
