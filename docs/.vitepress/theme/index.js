/** The default theme with fonts of the system, and what every page says at its end. */
import DefaultTheme from 'vitepress/theme-without-fonts'
import { h } from 'vue'
import './style.css'

export default {
  extends: DefaultTheme,
  Layout: () =>
    h(DefaultTheme.Layout, null, {
      'layout-bottom': () =>
        h('p', { class: 'unofficial' }, 'Unofficial; not affiliated with DRACOON GmbH. Apache-2.0.'),
    }),
}
